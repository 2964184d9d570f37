"""Statistics over the global batch: processes that each see a part, and together must get what one process gets."""

from __future__ import annotations

import threading

import pytest
import torch

from distail import Outputs, create_method
from helpers.made_batches import made_batch
from helpers.method_cases import CASES, make_call, make_method, teacher_pass

pytestmark = pytest.mark.integration


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
        return (
            kept,
            method.previous_epoch.memory.completed.value,
            method.previous_epoch.memory.in_completed.value,
        )

    for kept, completed, in_completed in Group.run(2, work):
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        assert torch.equal(completed, alone.previous_epoch.memory.completed.value)
        assert torch.equal(in_completed, alone.previous_epoch.memory.in_completed.value)


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
        return method.previous_epoch.memory.completed.value

    for completed in Group.run(3, work):
        assert torch.equal(completed, alone.previous_epoch.memory.completed.value)


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
        return method.previous_epoch.memory.completed.value, method.previous_epoch.memory.in_completed.value

    return Group.run(RANKS, work)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stops", [(), (4,), (1, 2, 8), tuple(range(STEPS))])
def test_of_a_sample_that_several_processes_draw_the_latest_counts_resumed_or_not(seed, stops):
    index, logits = draws_with_repetition(seed)
    expected, is_known = torch.zeros(SAMPLES, 2, dtype=torch.float16), torch.zeros(SAMPLES, dtype=torch.bool)
    for step in range(STEPS):
        of_step = {}
        for rank in range(RANKS):
            of_rank = dict(zip(index[step, rank].tolist(), logits[step, rank], strict=True))  # the later row
            for sample, row in of_rank.items():
                of_step.setdefault(sample, []).append(torch.softmax(row, dim=0).half().double())
        for sample, rows in of_step.items():
            expected[sample], is_known[sample] = sum(rows) / len(rows), True
    for completed, in_completed in memory_after(index, logits, stops):
        torch.testing.assert_close(completed, expected, rtol=1e-3, atol=1e-6)
        assert torch.equal(in_completed, is_known)


@pytest.mark.parametrize("seed", range(5))
def test_a_resumed_epoch_of_several_processes_ends_with_the_same_bits(seed):
    index, logits = draws_with_repetition(seed)
    (whole, _), *_ = memory_after(index, logits, ())
    for stops in [(4,), (1, 2, 8)]:
        for completed, _ in memory_after(index, logits, stops):
            assert torch.equal(completed, whole)


def epochs_of(processes, shown, logits, stop=None, before=None):
    """What each process stores after some epochs, and the losses of the last by sample.

    Args:
        shown: (epochs, steps, batch) the samples of every step, which the processes share.
        stop: (epoch, step) before which what is remembered goes through a checkpoint, to as many methods.
        before: a state to begin with, and in which epoch.
    """
    epochs, steps, batch = shown.shape
    methods, again = (
        [create_method("kd", class_counts=[8, 4], teacher="previous_epoch") for _ in range(processes)] for _ in range(2)
    )
    state, first = before or (None, 0)

    def work(rank, reduce):
        method, mine = methods[rank], slice(batch * rank // processes, batch * (rank + 1) // processes)
        method.reduce = again[rank].reduce = reduce
        if state is not None:
            method.load_memory_state(state)
        losses = {}
        for epoch in range(first, epochs):
            method.begin_epoch(epoch, epochs)
            for step in range(steps):
                if (epoch, step) == stop:
                    kept = method.memory_state()
                    method = again[rank]
                    method.load_memory_state(kept)
                    method.begin_epoch(epoch, epochs)
                index = shown[epoch, step, mine]
                student = Outputs(logits[epoch, step, mine])
                terms = method(student, None, torch.zeros_like(index), index=index)
                if epoch == epochs - 1:
                    losses |= {int(sample): float(loss) for sample, loss in zip(index, terms.per_sample, strict=True)}
        return method.memory_state(), losses

    results = Group.run(processes, work)
    losses = {sample: loss for _, of_rank in results for sample, loss in of_rank.items()}
    return [stored for stored, _ in results], losses


def permutations(seed, epochs=3):
    """Each of twelve samples once per epoch, in steps of six."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.stack([torch.randperm(SAMPLES, generator=generator).view(2, 6) for _ in range(epochs)])
    return shown, torch.randn(epochs, 2, 6, 2, generator=generator)


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("stop", [None, (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("block", [1, 7, 2**23])
def test_every_process_remembers_what_one_alone_would(processes, stop, block, monkeypatch):
    monkeypatch.setattr("distail.methods.memory_bank.BLOCK", block)
    shown, logits = permutations(processes)
    [expected], expected_losses = epochs_of(1, shown, logits)
    states, losses = epochs_of(processes, shown, logits, stop)
    for state in states:
        assert_same(state, expected)
    assert losses == expected_losses


@pytest.mark.parametrize(("begun", "finished"), [(1, 3), (3, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("epoch", [1, 2])
def test_what_some_processes_stored_as_many_others_take_up(begun, finished, epoch):
    """A state of the end of epoch 1, taken up in that epoch, of which nothing is left, or in the next."""
    shown, logits = permutations(7)
    [expected], expected_losses = epochs_of(1, shown, logits)
    [stored, *_], _ = epochs_of(begun, shown[:2], logits[:2])
    [state, *_], losses = epochs_of(finished, shown, logits, before=(stored, epoch))
    assert_same(state, expected)
    assert losses == pytest.approx(expected_losses, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_samples_that_no_process_shows_keep_their_older_prediction(seed):
    """A sampler that draws with replacement leaves some out."""
    generator = torch.Generator().manual_seed(seed)
    shown, logits = torch.randint(0, SAMPLES, (6, 2, 6), generator=generator), torch.randn(6, 2, 6, 2)
    for epoch in shown:  # no sample in two processes: of one that two write in a step the mean counts, by intention
        of_first, of_second = epoch[:, :3] % 6, epoch[:, 3:] % 6 + 6
        epoch[:] = torch.cat([of_first, of_second], dim=1)[:, torch.tensor([3, 4, 5, 0, 1, 2])]
    [expected], expected_losses = epochs_of(1, shown, logits)
    [state, _], losses = epochs_of(2, shown, logits)
    assert (expected["in_completed"] & ~expected["in_running"]).any()
    assert_same(state, expected)
    assert losses == expected_losses
