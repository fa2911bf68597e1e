"""Feature maps of student and teacher, compared wherever both have about the same height and width.

Of each size the last output of a stage counts. A teacher that sees larger images has larger maps: the smallest one
less than twice as high and wide as the student's is averaged down to it. A vision transformer has one map: its tokens
behind the last block. Several teachers are compared one by one and averaged. Hooks keep the maps of the last forward
pass, so the loop needs to know nothing of them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermdistill.errors import UserError
from dermdistill.training.maps import feature_map, patches
from dermdistill.training.models import Classifier

Size = tuple[int, int]


class Maps:
    """``by_size``: height and width → the last (n, c, height, width) output of that size in the last forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.by_size: dict[Size, Tensor] = {}
        network = model.get_submodule("network")
        self.patches = patches(network)
        for name, module in network.named_modules():
            if name and name.count(".") < 2:  # layers of the trunk and its stages, not what is inside a block
                module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: object) -> None:
        if (found := feature_map(output, self.patches)) is not None:
            self.by_size[(found.shape[2], found.shape[3])] = found


def make_feature_loss(method: str, student: Classifier, teacher: nn.Module, size: Size) -> Callable[[], Tensor]:
    """The term of ``method``, at or feature, for images of ``size``; the networks must run before each call of it."""
    return (attention if method == "at" else regression)(student, teacher, size)


def attention(student: Classifier, teacher: nn.Module, size: Size) -> Callable[[], Tensor]:
    """Σ over sizes of the mean squared difference of attention maps, Σ_c |A_c|² over its norm, mean over teachers.

    Source: Zagoruyko & Komodakis (2017), arXiv:1612.03928, section 3.1. Squared and averaged over positions, as in the
    authors' program, for which β = 1000 is meant, and not the norm of their equation 2.
    """
    student_maps, teacher_maps, pairs = _pair(student, teacher, size)

    def term() -> Tensor:
        each = [
            torch.stack(
                [_attention_distance(student_maps.by_size[at], other.by_size[there]) for at, there in compared]
            ).sum()
            for other, compared in zip(teacher_maps, pairs, strict=True)
        ]
        return torch.stack(each).mean()

    return term


def _attention_distance(mine: Tensor, theirs: Tensor) -> Tensor:
    size = (mine.shape[2], mine.shape[3])
    return (_attention(mine) - _attention(_averaged(theirs, size))).square().mean()


def _attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.square().sum(1).flatten(1), dim=1)


def _averaged(maps: Tensor, size: Size) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def regression(student: Classifier, teacher: nn.Module, size: Size) -> Callable[[], Tensor]:
    """Mean squared difference of the teacher's deepest map of a size the student has too and a 1×1 convolution of the
    student's, which is trained with it as ``student.projections``; mean over teachers.

    Source: Romero et al. (2015), arXiv:1412.6550, equation 3, in one phase with kl_loss.
    """
    student_maps, teacher_maps, pairs = _pair(student, teacher, size)
    deepest = [min(sizes) for sizes in pairs]
    student.projections = nn.ModuleList(
        nn.Conv2d(student_maps.by_size[at].shape[1], other.by_size[there].shape[1], 1)
        for (at, there), other in zip(deepest, teacher_maps, strict=True)
    )
    projections = student.projections
    student_maps.by_size.clear()  # else it would be copied with the student

    def term() -> Tensor:
        triples = zip(deepest, teacher_maps, projections, strict=True)
        each = [
            F.mse_loss(fit(student_maps.by_size[at]), _averaged(other.by_size[there], at))
            for (at, there), other, fit in triples
        ]
        return torch.stack(each).mean()

    return term


def _pair(
    student: Classifier, teacher: nn.Module, size: Size
) -> tuple[Maps, list[Maps], list[list[tuple[Size, Size]]]]:
    """Maps of the student and of each teacher for one blank image, and which sizes of theirs are compared."""
    members = list(teacher.get_submodule("members").children())
    student_maps, teacher_maps = Maps(student), [Maps(member) for member in members]
    training = student.training
    with torch.no_grad():
        for model in (student, *members):
            model.eval()(torch.zeros(1, 3, *size))
    student.train(training)
    pairs = [
        [
            (at, min(fitting))
            for at in student_maps.by_size
            if (fitting := [there for there in other.by_size if _fits(at, there)])
        ]
        for other in teacher_maps
    ]
    if not all(pairs):
        raise UserError(
            "student and teacher have no feature maps of about the same height and width; "
            "choose another student, or a kd.method that compares logits (kd, ls, dkd, dist)"
        )
    return student_maps, teacher_maps, pairs


def _fits(mine: Size, theirs: Size) -> bool:
    return all(a <= b < 2 * a for a, b in zip(mine, theirs, strict=True))
