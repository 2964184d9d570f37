"""Statistics over the global batch: processes that each see a part, and together must get what one process gets."""

from __future__ import annotations

import threading

import pytest
import torch
from made_batches import made_batch
from method_cases import CASES, make_call, make_method, teacher_pass

from distail import Outputs, create_method


class Group:
    """Processes that sum tensors over all of them, as threads: what torch.distributed's all-reduce does."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=60)
        self.parts = [None] * size

    def member(self, rank):
        def reduce(tensor):
            self.parts[rank] = tensor
            self.barrier.wait()
            total = torch.stack([part.to(tensor.dtype) for part in self.parts]).sum(dim=0)
            self.barrier.wait()
            return total

        return reduce

    @staticmethod
    def run(size, work):
        """What `work(rank, reduce)` returns in every process."""
        group, results = Group(size), [None] * size

        def one(rank):
            try:
                results[rank] = work(rank, group.member(rank))
            except BaseException:
                group.barrier.abort()
                raise

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(result is not None for result in results)
        return results


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", [(4, 4), (5, 2, 1)])
def test_parts_of_a_batch_give_what_the_whole_gives(case, sizes):
    batch = made_batch(0, batch_size=8)
    whole, call = make_method(case, batch.counts), make_call(batch)
    expected = call(whole)
    (gradient,) = torch.autograd.grad(expected.per_sample.sum(), call.student.logits)
    ends = torch.tensor(sizes).cumsum(0).tolist()

    # made one after another: threads would share torch's random state
    methods = [make_method(case, batch.counts) for _ in sizes]
    calls = [make_call(batch) for _ in sizes]

    def work(rank, reduce):
        methods[rank].reduce = reduce
        part = calls[rank].rows(slice(ends[rank] - sizes[rank], ends[rank]))
        per_sample = part(methods[rank]).per_sample
        return per_sample.detach(), torch.autograd.grad(per_sample.sum(), calls[rank].student.logits)[0]

    results = Group.run(len(sizes), work)
    torch.testing.assert_close(torch.cat([per_sample for per_sample, _ in results]), expected.per_sample)
    torch.testing.assert_close(sum(gradients for _, gradients in results), gradient)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_that_every_process_has_whole_gives_what_it_gives_one(case):
    """Batches too small to share go to all: sums over processes then count each sample as often as there are any."""
    batch = made_batch(0, batch_size=3)
    expected = make_call(batch)(make_method(case, batch.counts)).per_sample
    methods, calls = [make_method(case, batch.counts) for _ in range(2)], [make_call(batch) for _ in range(2)]

    def work(rank, reduce):
        methods[rank].reduce = reduce
        return calls[rank](methods[rank]).per_sample.detach()

    for per_sample in Group.run(2, work):
        torch.testing.assert_close(per_sample, expected.detach())


def test_without_reduce_the_parts_would_differ():
    """So that the test above can fail."""
    batch = made_batch(0, batch_size=8)
    for case in ("ipwd", "ltkd", "ce with class_balanced"):
        method, call = make_method(case, batch.counts), make_call(batch)
        halves = torch.cat([call.rows(rows)(method).per_sample for rows in (slice(0, 4), slice(4, 8))])
        assert not torch.allclose(halves, call(method).per_sample)


def test_class_means_are_those_of_all_processes():
    outputs, target = teacher_pass(7)
    counts = made_batch(0).counts
    whole = make_method("krdistill", counts)
    methods = [create_method("krdistill", class_counts=counts, student_dim=6, teacher_dim=9) for _ in range(3)]

    def work(rank, reduce):
        methods[rank].reduce = reduce
        rows = slice(rank, None, 3)
        methods[rank].prepare([(Outputs(outputs.logits[rows], outputs.features[rows]), target[rows])])
        return methods[rank].representation.priors.value

    for priors in Group.run(3, work):
        assert torch.equal(priors, whole.representation.priors.value)


def test_the_memories_of_all_processes_become_one():
    counts, size = [8, 4], 12
    logits = torch.randn(size, 2)

    def make():
        return create_method("kd", class_counts=counts, teacher="previous_epoch")

    def step(method, index):
        method(Outputs(logits[index]), None, torch.zeros(len(index), dtype=torch.int64), index=index)

    alone = make()
    alone.begin_epoch(0, 3)
    step(alone, torch.arange(10))
    expected = alone.memory_state()
    alone.begin_epoch(1, 3)
    methods = [make() for _ in range(2)]

    def work(rank, reduce):
        method = methods[rank]
        method.reduce = reduce
        method.begin_epoch(0, 3)
        step(method, torch.arange(rank, 10, 2))
        kept = {name: value.clone() for name, value in method.memory_state().items()}
        method.begin_epoch(1, 3)
        return kept, method.previous_epoch.completed.value, method.previous_epoch.in_completed.value

    for kept, completed, in_completed in Group.run(2, work):
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        assert torch.equal(completed, alone.previous_epoch.completed.value)
        assert torch.equal(in_completed, alone.previous_epoch.in_completed.value)


def test_a_memory_that_every_process_took_up_again_counts_once():
    """After resuming within an epoch all processes hold what all had written."""
    counts, logits = [8, 4], torch.randn(12, 2)
    zeros = torch.zeros(6, dtype=torch.int64)
    alone = create_method("kd", class_counts=counts, teacher="previous_epoch")
    alone.begin_epoch(0, 3)
    alone(Outputs(logits[:6]), None, zeros, index=torch.arange(6))
    kept = {name: value.clone() for name, value in alone.memory_state().items()}
    alone(Outputs(logits[6:]), None, zeros, index=torch.arange(6, 12))
    alone.begin_epoch(1, 3)
    methods = [create_method("kd", class_counts=counts, teacher="previous_epoch") for _ in range(3)]

    def work(rank, reduce):
        method, rows = methods[rank], torch.arange(6 + rank, 12, 3)
        method.reduce = reduce
        method.load_memory_state(kept)
        method.begin_epoch(0, 3)
        method(Outputs(logits[rows]), None, zeros[: len(rows)], index=rows)
        method.begin_epoch(1, 3)
        return method.previous_epoch.completed.value

    for completed in Group.run(3, work):
        assert torch.equal(completed, alone.previous_epoch.completed.value)


STEPS, SAMPLES, RANKS = 9, 12, 3


def draws_with_repetition(seed):
    """Of each step and process the samples that it draws, two of them, and what it says of them."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, SAMPLES - 1, (STEPS, RANKS, 2), generator=generator)
    return index, torch.randn(STEPS, RANKS, 2, 2, generator=generator)


def memory_after(index, logits, stops):
    """What the processes remember of an epoch that was resumed, in all of them, after each of these steps."""
    methods = [create_method("kd", class_counts=[8, 4], teacher="previous_epoch") for _ in range(RANKS)]
    again = {
        stop: [create_method("kd", class_counts=[8, 4], teacher="previous_epoch") for _ in range(RANKS)]
        for stop in stops
    }

    def work(rank, reduce):
        method = methods[rank]
        method.reduce = reduce
        method.begin_epoch(0, 2)
        for step in range(STEPS):
            if step in stops:
                kept = {name: value.clone() for name, value in method.memory_state().items()}
                method = again[step][rank]
                method.reduce = reduce
                method.load_memory_state(kept)
                method.begin_epoch(0, 2)
            batch = index[step, rank]
            method(Outputs(logits[step, rank]), None, torch.zeros_like(batch), index=batch)
        method.begin_epoch(1, 2)
        return method.previous_epoch.completed.value, method.previous_epoch.in_completed.value

    return Group.run(RANKS, work)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stops", [(), (4,), (1, 2, 8), tuple(range(STEPS))])
def test_of_a_sample_that_several_processes_draw_the_latest_counts_resumed_or_not(seed, stops):
    index, logits = draws_with_repetition(seed)
    expected, drawn = torch.zeros(SAMPLES, 2, dtype=torch.float16), torch.zeros(SAMPLES, dtype=torch.bool)
    for step in range(STEPS):
        of_step = {}
        for rank in range(RANKS):
            of_rank = dict(zip(index[step, rank].tolist(), logits[step, rank], strict=True))  # the later row
            for sample, row in of_rank.items():
                of_step.setdefault(sample, []).append(torch.softmax(row, dim=0).half().double())
        for sample, rows in of_step.items():
            expected[sample], drawn[sample] = sum(rows) / len(rows), True
    for completed, in_completed in memory_after(index, logits, stops):
        torch.testing.assert_close(completed, expected, rtol=1e-3, atol=1e-6)
        assert torch.equal(in_completed, drawn)


@pytest.mark.parametrize("seed", range(5))
def test_a_resumed_epoch_of_several_processes_ends_with_the_same_bits(seed):
    index, logits = draws_with_repetition(seed)
    (whole, _), *_ = memory_after(index, logits, ())
    for stops in [(4,), (1, 2, 8)]:
        for completed, _ in memory_after(index, logits, stops):
            assert torch.equal(completed, whole)
