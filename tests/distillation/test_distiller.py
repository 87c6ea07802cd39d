"""One forward pass with a teacher: losses and gradients, and what a copy of the student has."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from lessons import BoxedObjects, LabelledPixels, detector, segmentor, training
from mmengine.dataset import pseudo_collate
from test_distances import literal_divergence
from torch import nn

from mmsw.apis import init_model
from mmsw.engine.distillation.distiller import Distiller
from mmsw.engine.distillation.teacher import Teacher
from mmsw.engine.distillation.terms import features_term, logits_term
from mmsw.errors import UsageError

CPU = torch.device('cpu')


def student_of(model: dict, folder) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no checkpoint
        return init_model(training(folder, model)).train()


def batch_for(model: nn.Module, dataset: type) -> dict:
    return model.data_preprocessor(pseudo_collate([dataset()[0], dataset()[1]]), True)


def losses_of(model: nn.Module, batch: dict) -> dict[str, torch.Tensor]:
    return model(**batch, mode='loss')


def gradients(model: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(found, model.parameters(), strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]


@pytest.fixture
def plain_segmentor(tmp_path) -> nn.Module:
    """Nothing of it is random."""
    model = segmentor(drop_path_rate=0.0)
    model['decode_head']['dropout_ratio'] = 0.0
    return student_of(model, tmp_path)


@pytest.fixture
def taught(plain_segmentor, of_segmentor) -> Iterator[tuple[nn.Module, Teacher, dict]]:
    """A student that learns from logits, its teacher, and a batch."""
    teacher = Teacher(**of_segmentor, scope='mmseg', device=CPU)
    terms = [logits_term(dict(weight=2.0, temperature=3.0))]
    distiller = Distiller(plain_segmentor, teacher, terms)
    yield plain_segmentor, teacher, batch_for(plain_segmentor, LabelledPixels)
    distiller.end()


def test_logits_and_their_gradients_are_the_formula(taught) -> None:
    student, teacher, batch = taught
    losses = losses_of(student, batch)
    assert set(losses) == {'decode.loss_ce', 'decode.acc_seg', 'loss_distill_logits'}
    own = student.decode_head.forward(student.extract_feat(batch['inputs']))
    with torch.no_grad():
        other = teacher.model.decode_head.forward(teacher.model.extract_feat(batch['inputs']))
    assert list(own.shape) == [2, 3, 5, 7]
    expected = 2.0 * literal_divergence(own.double(), other.double(), 3.0, 'space')
    assert losses['loss_distill_logits'].item() == pytest.approx(expected.item(), rel=1e-4)
    # The whole gradient is that of the labels and that of the formula, and nothing else.
    whole = gradients(student, losses['decode.loss_ce'] + losses['loss_distill_logits'])
    labels = gradients(student, losses_of(student, batch)['decode.loss_ce'])
    formula = gradients(student, expected)
    for all_of_it, one, two in zip(whole, labels, formula, strict=True):
        torch.testing.assert_close(all_of_it, one + two, rtol=1e-3, atol=1e-6)
    assert sum(float(gradient.abs().sum()) for gradient in formula) > 0


def test_features_of_a_detector_are_the_mean_over_its_levels(of_detector, tmp_path) -> None:
    student = student_of(detector(drop_path_rate=0.0), tmp_path)
    teacher = Teacher(**of_detector, scope='mmdet', device=CPU)
    batch = batch_for(student, BoxedObjects)
    distiller = Distiller(student, teacher, [features_term(dict(layers=['neck'], weight=0.5))])
    found = losses_of(student, batch)['loss_distill_features']
    distiller.end()
    assert 'loss_distill_features' not in losses_of(student, batch)
    levels = []
    images = batch['inputs']
    both = student.extract_feat(images), teacher.model.extract_feat(images)
    for pair in zip(*both, strict=True):
        own, other = (x.detach().transpose(0, 1).flatten(1).double().numpy() for x in pair)
        each = [np.corrcoef(a, b)[0, 1] for a, b in zip(own, other, strict=True)]
        levels.append(1 - np.mean(each))
    assert len(levels) == 3
    assert found.item() == pytest.approx(0.5 * np.mean(levels), abs=2e-3)


def test_maps_of_another_size_and_name(plain_segmentor, of_segmentor) -> None:
    """The first stage of the teacher has twice the height and width of the student's second."""
    teacher = Teacher(**of_segmentor, scope='mmseg', device=CPU)
    term = features_term(dict(layers={'backbone.stages.1': 'backbone.stages.0'}))
    distiller = Distiller(plain_segmentor, teacher, [term])
    batch = batch_for(plain_segmentor, LabelledPixels)
    found = losses_of(plain_segmentor, batch)['loss_distill_features']
    distiller.end()
    assert 0 < found.item() < 2
    assert sum(float(g.abs().sum()) for g in gradients(plain_segmentor, found)) > 0


def test_only_losses_of_a_training_have_terms(taught) -> None:
    student, _, batch = taught
    assert isinstance(student(**batch, mode='tensor'), torch.Tensor)
    student.eval()
    assert 'loss_distill_logits' not in losses_of(student, batch)


def test_a_copy_has_no_part_in_it(taught) -> None:
    student, teacher, batch = taught
    alone = losses_of(student, batch)
    size = len(pickle.dumps(student.state_dict()))
    packed = pickle.dumps(student)
    assert len(packed) < 2 * size + 200_000  # the teacher is as large as the student
    for other in (copy.deepcopy(student), pickle.loads(packed)):
        found = losses_of(other, batch)
        assert set(alone) - set(found) == {'loss_distill_logits'}
        assert found['decode.loss_ce'].item() == alone['decode.loss_ce'].item()
    assert 'loss_distill_logits' in losses_of(student, batch)
    assert teacher.model not in set(student.modules())


@pytest.mark.parametrize(
    ('layers', 'message'),
    [
        ({'backbone': 'backbone.stages.0'}, 'gives 2 maps, layer .* of the teacher 1;'),
        ({'backbone.stages.0': 'backbone'}, 'gives 1 maps, layer .* of the teacher 2;'),
        ({'backbone.stages.0': 'decode_head.conv_seg'}, 'has 8 channels, .* of the teacher 3;'),
        (['backbone.stages.0.0.shift_wise.pattern'], 'takes no part in the forward pass'),
        (['backbone.stages.0.0.pointwise_conv1'], 'is linear: its channels come last'),
        (['decode_head.loss_decode'], r'of the student gives \[\]; expected maps'),
    ],
)
def test_maps_that_cannot_be_compared(plain_segmentor, of_segmentor, layers, message) -> None:
    teacher = Teacher(**of_segmentor, scope='mmseg', device=CPU)
    distiller = Distiller(plain_segmentor, teacher, [features_term(dict(layers=layers))])
    with pytest.raises(UsageError, match=message):
        losses_of(plain_segmentor, batch_for(plain_segmentor, LabelledPixels))
    distiller.end()


def test_a_frozen_layer_cannot_learn(plain_segmentor, of_segmentor) -> None:
    plain_segmentor.backbone.requires_grad_(False)
    teacher = Teacher(**of_segmentor, scope='mmseg', device=CPU)
    distiller = Distiller(plain_segmentor, teacher, [features_term(['backbone'])])
    with pytest.raises(UsageError, match='no gradient flows through layer backbone'):
        losses_of(plain_segmentor, batch_for(plain_segmentor, LabelledPixels))
    distiller.end()
