"""What each kind of step does: read its inputs from the store, call the plugin, publish item by item.

A handler gets the items of its shard that are still missing. It publishes each as soon as it is made, so that a stop
at any moment loses at most the item in hand.
"""

from __future__ import annotations

from medlord_bench.steps.job import Handler, Job
from medlord_bench.steps.measure import features, labels, scores, states
from medlord_bench.steps.prepare import images
from medlord_bench.steps.sample import conditional, reconstructions, samples
from medlord_bench.steps.select import select
from medlord_bench.steps.train import weights

__all__ = ["HANDLERS", "Handler", "Job"]

HANDLERS: dict[str, Handler] = {
    "images": images,
    "weights": weights,
    "select": select,
    "samples": samples,
    "conditional": conditional,
    "reconstructions": reconstructions,
    "features": features,
    "states": states,
    "labels": labels,
    "scores": scores,
}
