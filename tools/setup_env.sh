#!/usr/bin/env bash
# Builds the environment .venv/STACK that `make demo` and `make test` run in, or does nothing if it is ready.
# Where requirements have changed, it installs what differs; torch or mmcv of another version means a new one.
#
#   tools/setup_env.sh openmmlab|onedl
#
# BASE_PYTHON  interpreter the environment is made from (default: python3)
# MAX_JOBS     compiler processes that run at once while mmcv is built (default: by cores and memory)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stack=${1:-}
venv=.venv/$stack
py=$venv/bin/python
stamp=$venv/ready  # written last: holds what the environment was made from
log=.venv/$stack.log
base=${BASE_PYTHON:-python3}
heartbeat=30
SECONDS=0

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

say() { printf '==> %s\n' "$*"; }
note() { printf '    [%2dm%02ds] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

case $stack in
    openmmlab) mmcv=$(grep '^mmcv==' requirements/openmmlab.txt) ;;
    onedl) mmcv=$(grep '^onedl-mmcv==' requirements/onedl.txt) ;;
    *) die "STACK='$stack' is unknown; choose openmmlab or onedl" ;;
esac
constraints=requirements/constraints-$stack.txt

digest() { "$py" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# What the environment as a whole depends on: the place of the checkout, this script and the pins.
stack_digest() {
    {
        pwd
        cat tools/setup_env.sh requirements/{runtime,build,"$stack",taichi,demo,export,test}.txt "$constraints"
    } | digest
}

# What the installed entry of mmsw and its compiled operators depend on; the Python code is used in place.
mmsw_digest() {
    {
        cat setup.py build_ops.py pyproject.toml mmsw/version.py mmsw/ops/compiled.py
        cat requirements/{runtime,openmmlab,onedl,pretrain,onedl-pretrain,taichi,demo,export,test,docs}.txt
        find mmsw/ops/csrc -type f | LC_ALL=C sort | xargs cat
    } | digest
}

base_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# is_current PART: whether the stamp holds the present digest of that part.
is_current() {
    local now
    now=$("${1}_digest" 2>/dev/null) && grep -qx "$1 $now" "$stamp" 2>/dev/null
}

# True if the stack is complete, made from the present pins and, where BASE_PYTHON is given, of its version.
stack_is_ready() {
    [[ -x $py ]] && is_current stack || return 1
    [[ -z ${BASE_PYTHON:-} ]] || [[ $(base_version "$base" 2>/dev/null) == "$(base_version "$py")" ]]
}

# Whether the environment was complete once, in this place, with the torch and the mmcv that are pinned now.
# Then pip can bring the rest up to date, and mmcv need not be compiled again.
stack_is_close() {
    [[ -x $py && -f $stamp ]] && grep -qF "$(pwd -P)/$venv" "$venv/bin/activate" || return 1
    [[ -z ${BASE_PYTHON:-} ]] || [[ $(base_version "$base") == "$(base_version "$py")" ]] || return 1
    "$py" - "$(grep '^torch==' requirements/build.txt)" "$mmcv" 2>/dev/null <<'END'
import sys
from importlib.metadata import version
pins = [pin.split('==') for pin in sys.argv[1:]]
sys.exit(any(version(name).partition('+')[0] != pinned for name, pinned in pins))
END
}

write_stamp() {
    printf '%s %s\n' stack "$(stack_digest)" mmsw "$(mmsw_digest)" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

# Everything that can be known to fail is found out before anything is installed.
check_base() {
    command -v "$base" >/dev/null || die "BASE_PYTHON='$base' was not found; name a Python 3.10 or newer"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "BASE_PYTHON='$base' is Python $(base_version "$base"); mmsw needs 3.10 or newer"
    if [[ $stack == openmmlab ]]; then
        "$base" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' ||
            die "BASE_PYTHON='$base' is Python $(base_version "$base"); the openmmlab stack needs numpy 1.26, which" \
                'stops at Python 3.12. Name an older one with BASE_PYTHON=..., or use STACK=onedl'
    fi
    command -v "${CXX:-c++}" >/dev/null ||
        die "no C++ compiler '${CXX:-c++}', which mmcv is compiled with; install one" \
            '(on Debian and Ubuntu: apt install g++) or name it with CXX=...'
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        die "'$base' has no venv module; install it (on Debian and Ubuntu: apt install python3-venv)"
    "$base" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
        die "'$base' has no C headers (Python.h), which mmcv is compiled with; install them" \
            '(on Debian and Ubuntu: apt install python3-dev)'
}

default_jobs() {
    "$base" -c 'import os
try:
    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
except (AttributeError, ValueError):
    cores, memory = os.cpu_count() or 1, 8 << 30
print(max(1, min(cores, memory >> 31)))'
}

# Turns pip's and ninja's output into short lines, with a sign of life when they are silent.
progress() {
    local line code asked
    while true; do
        code=0
        asked=$SECONDS
        IFS= read -r -t "$heartbeat" line || code=$?
        # Bash 3.2 (macOS) says 1 for silence as for the end; after the end the next call says 1 at once.
        if ((code > 0 && SECONDS - asked >= heartbeat - 1)); then
            note 'still working'
        elif ((code > 0)); then
            return 0
        elif [[ $line =~ ^[[:space:]]*\[([0-9]+/[0-9]+)\]\  ]]; then
            note "compiled ${BASH_REMATCH[1]} files"
        elif [[ $line =~ ^[[:space:]]*((Collecting|Processing|Installing|Successfully)\ .*) ]]; then
            line=${BASH_REMATCH[1]%% (from *}
            [[ $line != Processing\ * ]] || line="Processing ${line##*/}"
            ((${#line} <= 90)) || line="${line:0:87}..."
            note "$line"
        fi
    done
}

# step TITLE COMMAND...: runs a command in a process group of its own, so that an interruption ends all of it.
job=
step() {
    say "$1"
    shift
    printf '\n$ %s\n' "$*" >>"$log"
    set -m
    (
        set +e
        "$@" </dev/null 2>&1 | tee -a "$log" | progress
        exit "${PIPESTATUS[0]}"
    ) &
    job=$!
    set +m
    local code=0
    wait "$job" || code=$?
    job=
    return $code
}

interrupted() {
    trap '' INT TERM HUP
    [[ -z $job ]] || kill -TERM -- "-$job" 2>/dev/null || true
    printf '\nset-up interrupted; the next call starts it again\n' >&2
    exit 130
}

failed() {
    printf '\nlast lines of %s:\n' "$log" >&2
    tail -n 30 "$log" | cut -c 1-300 >&2
    die "$1"
}

pip_install() { "$py" -m pip install --no-input --disable-pip-version-check -c "$constraints" "$@"; }

# The distribution was once called mmsw, a name that belongs to somebody else on the package index.
drop_old_name() {
    rm -rf mmsw.egg-info
    if "$py" tools/check_env.py --stale-name "$PWD"; then
        "$py" -m pip uninstall -y --disable-pip-version-check mmsw >>"$log" 2>&1
    fi
}

install_mmsw() {
    drop_old_name &&
        step 'mmsw itself, with its C++ operators' pip_install --no-build-isolation --no-deps -e .
}

# Where torch sees a GPU, mmcv compiles for it and fails without nvcc.
hide_gpu_without_nvcc() {
    if "$py" -c 'import sys, torch
from torch.utils.cpp_extension import CUDA_HOME
sys.exit(not (torch.cuda.is_available() and CUDA_HOME is None))' 2>>"$log"; then
        note 'no CUDA toolkit (nvcc) beside the GPU: the operators of mmcv will run on the CPU only,'
        note 'which segmentation does not mind; detection on the GPU needs the toolkit and a new set-up'
        export CUDA_VISIBLE_DEVICES=
    fi
}

install_rest() {
    step 'the rest of the stack, Taichi, packages of export, demo and tests' pip_install --no-build-isolation \
        -r "requirements/$stack.txt" -r requirements/taichi.txt -r requirements/export.txt -r requirements/demo.txt \
        -r requirements/test.txt &&
        install_mmsw
}

update_all() {
    step 'build tools' pip_install -r requirements/build.txt -r requirements/runtime.txt && install_rest
}

# The constraints keep numpy where the stack needs it while mmcv, which would take any, is installed.
install_all() {
    step 'new virtual environment' "$base" -m venv "$venv" &&
        step 'torch and build tools' pip_install -r requirements/build.txt -r requirements/runtime.txt &&
        hide_gpu_without_nvcc &&
        step "$mmcv from source, $MAX_JOBS compilers at once (minutes, unless pip's cache has it)" \
            pip_install -v --no-build-isolation "$mmcv" &&
        install_rest
}

verify() { step 'check' "$py" tools/check_env.py --for test --import; }

is_ready() { stack_is_ready && is_current mmsw && "$py" tools/check_env.py --operators; }

! is_ready || exit 0
stack_is_ready || check_base
mkdir -p .venv
if command -v flock >/dev/null; then
    exec 9>".venv/$stack.lock"
    if ! flock -n 9; then
        say "another set-up of $venv is running; waiting for it"
        flock 9
        ! is_ready || exit 0
    fi
fi
trap interrupted INT TERM HUP
: >"$log"

if stack_is_ready; then
    install_mmsw || failed 'installing mmsw did not work'
    write_stamp
    exit 0
fi

export MAX_JOBS=${MAX_JOBS:-$(default_jobs)}
if stack_is_close; then
    say "updating $venv, whose requirements have changed (full output in $log)"
    echo 'an update was begun' >"$stamp" # one that is cut off is begun again
    update_all || failed "updating $venv did not work; correct what the lines above name and run it again"
    rm -f "$stamp" # if the check fails, the next call makes a new one
else
    say "setting up $venv with $("$base" --version) (once; full output in $log)"
    rm -rf "$venv"
    install_all || failed "setting up $venv did not work; correct what the lines above name and run it again"
fi
code=0
verify || code=$?
if ((code == 3 || code > 128)); then # the operators do not load, or crash
    # pip's cache knows a wheel by its source only, not by the torch it was compiled against.
    step "$mmcv again, since the one from pip's cache does not fit this torch" \
        pip_install -v --no-build-isolation --no-cache-dir --force-reinstall --no-deps "$mmcv" ||
        failed "compiling $mmcv did not work"
    code=0
    verify || code=$?
fi
((code == 0)) || failed "$venv was installed but does not work"
write_stamp
say "$venv is ready: $(grep '^Python ' "$log" | tail -n 1)"
