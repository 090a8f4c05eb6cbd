"""What is run of a candidate, and what it must move and do at least."""

import torch

from backbones import BackboneSpec, macs
from harness.cells import Runtime
from harness.measures.quiet import UNWATCHED
from harness.measures.roofline import Needed
from harness.racing.candidates import Candidate, Work, read_candidates
from harness.racing.entries import entered
from harness.racing.places import places_of, read_place
from harness.racing.race import Setup, race

(SMALL,) = read_place("dim=16,heads=2,grid=4x5")

WORKS: tuple[Work, ...] = ("forward", "both", "train")


def named(*texts: str) -> list[Candidate]:
    return read_candidates(texts, "fp32", None)


def test_only_a_training_step_moves_the_weights_of_a_model() -> None:
    moved = {}
    for work in WORKS:
        (candidate, _) = named("deit_micro", "deit_micro")
        entry = entered(candidate, None, work, Runtime(batch=1))
        before = [parameter.detach().clone() for parameter in entry.parameters.values()]
        entry.call(work)()
        moved[work] = not all(map(torch.equal, before, entry.parameters.values()))
    assert moved == {"forward": False, "both": False, "train": True}


def test_what_a_candidate_must_move_and_do_at_least() -> None:
    (softmax, focused) = named("softmax", "focused")
    entry = entered(softmax, SMALL, "forward", Runtime(batch=2))
    tokens = 2 * 20 * 16
    assert entry.needed("forward") == Needed(4 * 4 * tokens, 2 * 2 * 2 * 20 * 20 * 16)
    both = entry.needed("both")
    assert both == Needed(2 * 4 * 4 * tokens, 3 * entry.needed("forward").operations)
    weights = sum(x.numel() for x in entered(focused, SMALL, "both", Runtime(batch=2)).parameters.values())
    assert entered(focused, SMALL, "forward", Runtime(batch=2)).needed("forward").bytes == 4 * (4 * tokens + weights)
    # A layer adds its projections: q, k, v and the output's.
    (place, *_) = places_of("swin_micro")
    core, layer = (entered(softmax, place, "both", Runtime(batch=2), layer=is_layer) for is_layer in (False, True))
    entries, site = 2 * place.groups, place.site
    added = layer.needed("forward").operations - core.needed("forward").operations
    assert added == 2 * 4 * entries * site.queries.tokens * site.dim**2
    (model, _) = named("deit_micro", "deit_micro")
    whole = entered(model, None, "train", Runtime(batch=3))
    assert isinstance(model.reference, BackboneSpec)
    assert whole.needed("forward").operations == 2 * 3 * macs(model.reference).total
    parameters = sum(x.nbytes for x in whole.parameters.values())
    assert whole.needed("train").bytes - whole.needed("both").bytes == 5 * parameters
    measured = race(named("softmax", "linear"), SMALL, Setup("both", Runtime(batch=2), 1e-3), print, watching=UNWATCHED)
    assert measured.results[0].needed == both
