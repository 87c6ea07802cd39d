"""Predicting files: inputs in, outputs out, and what went wrong with which."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from mmsw.errors import DataError, UsageError
from mmsw.wording import listed, short

from ..image_way import image_way, load_image, prepare_image
from .inputs import Source
from .outcome import Outcome
from .overlay import draw_outcome
from .plan import PredictOptions, PredictPlan, plan_prediction
from .predictors import Loaded, outcomes, to_loader
from .progress import PredictReport, Progress
from .tables import CocoWriter, CsvWriter
from .video import Frames
from .writers import LabelMapWriter, OverlayWriter, Seen, Writer


def predict_files(
    model: nn.Module,
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    save: Sequence[str] = ('overlay',),
    *,
    batch_size: int = 1,
    score_thr: float = 0.3,
    opacity: float = 0.5,
    legend: bool = True,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    overwrite: bool = False,
    progress: Callable[[str], None] = print,
) -> PredictReport:
    """Predict images, folders of them, videos or a camera, and write what the model sees.

    A file that is bad is left out, and the report names it. Files are whole or absent, also when
    the prediction is interrupted.

    Args:
        model: What :func:`mmsw.apis.init_model` returned.
        inputs: Image files, video files, folders, which are searched with the folders in them,
            patterns such as ``'data/**/*.jpg'``, or ``'camera:0'`` alone.
        out: Folder for outputs. Names in it are those of the inputs, with the folders below the
            input.
        save: Some of ``'overlay'`` (pictures, and a video for a video, in ``OUT/overlay``),
            ``'label-map'`` (segmentors: PNG files of class indices in ``OUT/label-map``),
            ``'json'`` and ``'csv'`` (detectors: objects of all images, ``OUT/predictions.json``
            for pycocotools and ``OUT/predictions.csv``).
        batch_size: Most images, or windows, that the model gets at once. Neighbours of one size go
            together.
        score_thr: Least score of objects that are drawn and written, 0 to 1.
        opacity: Of classes or masks in pictures, 0 to 1.
        legend: Whether pictures of a segmentor name their classes, where there is room.
        window: Height and width of windows that images are cut into; each takes the way of a test
            image. ``None`` for whole images.
        overlap: Least share of a window that it has in common with its neighbour, 0 to 0.5.
        overwrite: Replace outputs that are there.
        progress: Called with one line each time.

    Returns:
        What was done and what was left out.

    Raises:
        UsageError: If something asked for makes no sense, or an output is there already; before any
            image is read.
        mmsw.datasets.DataError: If an input is not there, likewise.
        KeyboardInterrupt: If it is interrupted; what is finished stays. A camera ends that way
            without an error.
    """
    options = PredictOptions(
        tuple(save),
        batch_size,
        score_thr,
        opacity,
        legend,
        None if window is None else tuple(window),
        overlap,
    )
    scope = image_way(model).scope
    plan = plan_prediction(inputs, out, scope, options, overwrite=overwrite)
    return run_plan(model, plan, progress)


def run_plan(
    model: nn.Module, plan: PredictPlan, progress: Callable[[str], None] = print
) -> PredictReport:
    """Do what :func:`mmsw.apis.predict.plan.plan_prediction` settled.

    Returns, raises:
        As :func:`predict_files`.
    """
    run = _Run(model, plan, progress)
    try:
        run.work()
    except KeyboardInterrupt:
        run.report.interrupted = not run.at_camera
        run.close(whole=run.at_camera)
    except BaseException:
        run.close(whole=False)
        raise
    else:
        run.close(whole=True)
    if run.report.interrupted:
        finished, total = run.report.inputs, len(plan.sources)
        progress(f'interrupted: {finished} of {total} inputs are finished, and their files whole')
    run.tell()
    if run.report.interrupted:
        raise KeyboardInterrupt
    return run.report


class _Run:
    """One prediction: what is open, and what is done."""

    def __init__(self, model: nn.Module, plan: PredictPlan, say: Callable[[str], None]) -> None:
        self.model, self.plan, self.say = model, plan, say
        self.report = PredictReport()
        self._progress = Progress(len(plan.sources), say)
        self._writers = _writers(model, plan)
        self._video: Frames | None = None  # what outputs are open for
        self._opened: dict[Source, Frames] = {}

    @property
    def at_camera(self) -> bool:
        """Whether the input is a camera, which somebody has to end."""
        return self.plan.sources[0].kind == 'camera'

    def work(self) -> None:
        """Predict and write all there is."""
        for item, outcome in self._outcomes():
            self._follow(item)
            picture = None
            if 'overlay' in self.plan.options.save:
                options, meta = self.plan.options, self.model.dataset_meta
                with self.report.timed('drawing'):
                    picture = draw_outcome(
                        item.image, outcome, meta, options.opacity, options.legend
                    )
            seen = Seen(item.source, item.frame, item.image.shape[:2], outcome, picture)
            with self.report.timed('writing'):
                for writer in self._writers:
                    writer.write(seen)
            self._count(item, outcome)

    def close(self, whole: bool) -> None:
        """Finish what is open; a video only if it is whole."""
        self._end_video(whole)
        for writer in self._writers:
            writer.close(keep=whole or self.report.images > 0)

    def tell(self) -> None:
        """Say what was done."""
        plan, save = self.plan, self.plan.options.save
        places = [f'{plan.out / name}{os.sep}' for name in ('overlay', 'label-map') if name in save]
        places += [str(plan.table(kind)) for kind in ('json', 'csv') if kind in save]
        self.say(str(self.report))
        if self.report.images:
            self.say(f'written: {", ".join(places)}')
        if self.report.skipped:
            names = listed(list(self.report.skipped))
            self.say(f'{len(self.report.skipped)} of {len(plan.sources)} inputs are bad: {names}')

    def _outcomes(self) -> Iterator[tuple[Loaded, Outcome]]:
        """Predict; the time in it that is for reading counts as that."""
        found = outcomes(self.model, self._images(), self.plan.options, self._failed)
        while True:
            reading = self.report.seconds['reading']
            with self.report.timed('prediction'):
                item = next(found, None)
            self.report.seconds['prediction'] -= self.report.seconds['reading'] - reading
            if item is None:
                return
            yield item

    def _images(self) -> Iterator[Loaded]:
        for source in self.plan.sources:
            try:
                if source.kind == 'image':
                    with self.report.timed('reading'):
                        item = self._loaded(source, None, source.path)
                    yield item
                else:
                    yield from self._frames(source)
            except (DataError, UsageError) as error:
                self._skip(source, error)

    def _frames(self, source: Source) -> Iterator[Loaded]:
        self._opened[source] = Frames.open(source)
        frames = iter(self._opened[source])
        for number in itertools.count():
            with self.report.timed('reading'):
                frame = next(frames, None)
                if frame is None:
                    return
                item = self._loaded(source, number, to_loader(self.model, frame))
            yield item

    def _loaded(self, source: Source, frame: int | None, image: object) -> Loaded:
        """An image for the model; a path, or a frame."""
        if self.plan.options.window is not None:
            if frame is None:
                image = load_image(self.model, image)
                image_way(self.model).kind.check(image, 0)
            return Loaded(source, frame, image)
        keep = frame is None
        prepared = prepare_image(self.model, image, frame or 0, keep_image=keep)
        return Loaded(source, frame, prepared.image if keep else image, prepared)

    def _skip(self, source: Source, error: Exception) -> None:
        reason = ' '.join(str(error).split()) or short(error)
        self.report.skipped.setdefault(source.path, reason)
        self.say(f'bad: {reason if source.path in reason else f"{source.path}: {reason}"}')

    def _failed(self, item: Loaded, error: Exception) -> None:
        """Leave out an image that the model fails on; at the first one, all may be wrong."""
        if not self.report.images and not isinstance(error, DataError):
            raise error
        self._skip(item.source, DataError(f'{item.name}: the model fails ({short(error)})'))

    def _follow(self, item: Loaded) -> None:
        """Open and close outputs of videos where their frames begin and end."""
        if self._video is not None and self._video.source != item.source:
            self._end_video(whole=True)
        if item.frame is not None and self._video is None:
            self._video = self._opened.pop(item.source)
            for writer in self._writers:
                writer.start(item.source, self._video.fps)

    def _end_video(self, whole: bool) -> None:
        video, self._video = self._video, None
        if video is not None:
            for writer in self._writers:
                writer.end(video.source, whole)
            self.report.inputs += whole and video.source.path not in self.report.skipped

    def _count(self, item: Loaded, outcome: Outcome) -> None:
        self.report.images += 1
        if item.frame is None:
            self.report.inputs += 1
            classes = self.model.dataset_meta['classes']
            self._progress.image(item.source.path, lambda: outcome.describe(classes), self.report)
        else:
            count = self._video.count
            self._progress.frame(item.source.path, item.frame + 1, count, self.report)


def _writers(model: nn.Module, plan: PredictPlan) -> list[Writer]:
    meta, save = model.dataset_meta, plan.options.save
    writers: list[Writer] = []
    if 'overlay' in save:
        writers.append(OverlayWriter(plan.overlays))
    if 'label-map' in save:
        writers.append(LabelMapWriter(plan.label_maps, meta['palette']))
    if 'json' in save:
        writers.append(CocoWriter(plan.table('json'), meta['classes']))
    if 'csv' in save:
        writers.append(CsvWriter(plan.table('csv'), meta['classes']))
    return writers
