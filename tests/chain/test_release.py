"""A chain that has ended leaves no circles of references, which only the garbage collector could free."""

from __future__ import annotations

import gc
from random import Random

from spincycle_grpc.state import State
from spincycle_server.chain import RunningChain
from tests.chain.generated import ChainMaker
from tests.chain.test_keys import a_keyed_chain


def begun(seed: int) -> RunningChain:
    """Returns a random chain of which some jobs have run, with or without keys."""
    random = Random(seed)
    chain = RunningChain.new(a_keyed_chain(random) if seed % 2 else ChainMaker(random).make())
    actions = chain.start(0)
    for _ in range(random.randrange(20)):
        if actions.run:
            actions = chain.try_finished(actions.run[0].job_id, State.COMPLETE, 0)
    return chain


def test_released_chains_are_freed_without_the_garbage_collector() -> None:
    chains = [begun(seed) for seed in range(200)]
    gc.collect()
    gc.disable()
    try:
        for chain in chains:
            chain.release()
        del chain, chains
        assert gc.collect() == 0
    finally:
        gc.enable()
