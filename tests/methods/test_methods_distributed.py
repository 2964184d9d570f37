"""Statistics over the global batch: processes that each see a part, and together must get what one process gets."""

from __future__ import annotations

import threading

import pytest
import torch

from distail import Outputs, create_method
from distail.errors import MethodError
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
            method.previous_epoch.memory.rows.completed.value,
            method.previous_epoch.memory.rows.in_completed.value,
        )

    for kept, completed, in_completed in Group.run(2, work):
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
        assert torch.equal(completed, alone.previous_epoch.memory.rows.completed.value)
        assert torch.equal(in_completed, alone.previous_epoch.memory.rows.in_completed.value)


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
        return method.previous_epoch.memory.rows.completed.value

    for completed in Group.run(3, work):
        assert torch.equal(completed, alone.previous_epoch.memory.rows.completed.value)


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
        return method.previous_epoch.memory.rows.completed.value, method.previous_epoch.memory.rows.in_completed.value

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


def shared_out(processes, counts=(8, 4)):
    """Methods that each hold a part of one memory."""
    methods = [create_method("kd", class_counts=counts, teacher="previous_epoch") for _ in range(processes)]
    for rank, method in enumerate(methods):
        method.split_memory(rank, processes)
    return methods


def speak(method, index, logits):
    return method(Outputs(logits), None, torch.zeros_like(index), index=index)


def epochs_of(processes, drawn, logits, stop=None, before=None):
    """What the first process stores after some epochs, and the losses of the last by sample.

    Args:
        drawn: (epochs, steps, batch) the samples of every step, which the processes share.
        stop: (epoch, step) before which what is remembered goes through a checkpoint, to as many methods.
        before: a state to begin with, and in which epoch.
    """
    epochs, steps, batch = drawn.shape
    methods, again = shared_out(processes), shared_out(processes)
    state, first = before or (None, 0)

    def work(rank, reduce):
        method, mine = methods[rank], slice(batch * rank // processes, batch * (rank + 1) // processes)
        method.reduce = again[rank].reduce = reduce
        if state is not None:
            method.load_memory_state(state if rank == 0 else {})
        losses, held = {}, []
        for epoch in range(first, epochs):
            of_this = drawn[epoch, :, mine].flatten()
            method.begin_epoch(epoch, epochs, drawn=of_this)
            held.append(len(method.previous_epoch.memory.rows))
            for step in range(steps):
                if (epoch, step) == stop:
                    kept = method.memory_state()
                    method = again[rank]
                    method.load_memory_state(kept)
                    method.begin_epoch(epoch, epochs, drawn=of_this)
                index = drawn[epoch, step, mine]
                terms = speak(method, index, logits[epoch, step, mine])
                if epoch == epochs - 1:
                    losses |= {int(sample): float(loss) for sample, loss in zip(index, terms.per_sample, strict=True)}
        return method.memory_state(), losses, held

    results = Group.run(processes, work)
    assert all(state == {} for state, *_ in results[1:])
    losses = {sample: loss for _, of_rank, _ in results for sample, loss in of_rank.items()}
    return results[0][0], losses, [held for *_, held in results]


def permutations(seed, epochs=3):
    """Each of twelve samples once an epoch, in steps of six."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(SAMPLES, generator=generator).view(2, 6) for _ in range(epochs)])
    return drawn, torch.randn(epochs, 2, 6, 2, generator=generator)


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("stop", [None, (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("block", [1, 7, 2**23])
def test_a_memory_that_is_shared_out_is_the_whole_one(processes, stop, block, monkeypatch):
    monkeypatch.setattr("distail.methods.memory_bank.BLOCK", block)
    drawn, logits = permutations(processes)
    expected, expected_losses, [all_held] = epochs_of(1, drawn, logits)
    state, losses, held = epochs_of(processes, drawn, logits, stop)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert losses == expected_losses
    assert all_held == [SAMPLES] * 3
    drawn_by_one = -(-6 // processes) * 2
    assert max(map(max, held)) <= drawn_by_one + -(-SAMPLES // processes)
    assert max(map(max, held)) < SAMPLES or processes == 2


@pytest.mark.parametrize(("begun", "finished"), [(1, 3), (3, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("epoch", [1, 2])
def test_what_some_processes_stored_others_share_out_anew(begun, finished, epoch):
    """A state of the end of epoch 1, taken up in that epoch, of which nothing is left, or in the next."""
    drawn, logits = permutations(7)
    expected, expected_losses, _ = epochs_of(1, drawn, logits)
    stored, _, _ = epochs_of(begun, drawn[:2], logits[:2])
    state, losses, _ = epochs_of(finished, drawn, logits, before=(stored, epoch))
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert losses == pytest.approx(expected_losses, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_samples_that_no_process_draws_keep_their_older_prediction(seed):
    """A sampler that draws with replacement leaves some out: their block's process keeps them for the next epochs."""
    generator = torch.Generator().manual_seed(seed)
    drawn, logits = torch.randint(0, SAMPLES, (6, 2, 6), generator=generator), torch.randn(6, 2, 6, 2)
    for epoch in drawn:  # no sample in two processes: of one that two write in a step the mean counts, by intention
        of_first, of_second = epoch[:, :3] % 6, epoch[:, 3:] % 6 + 6
        epoch[:] = torch.cat([of_first, of_second], dim=1)[:, torch.tensor([3, 4, 5, 0, 1, 2])]
    expected, expected_losses, _ = epochs_of(1, drawn, logits)
    state, losses, _ = epochs_of(2, drawn, logits)
    assert (expected["in_completed"] & ~expected["in_running"]).any()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert losses == expected_losses


def test_a_shared_memory_wants_to_know_what_is_drawn():
    method, _ = shared_out(2)
    with pytest.raises(MethodError, match=r"shared out over processes; expected begin_epoch\(epoch, epochs, drawn=\)"):
        method.begin_epoch(0, 2)
    for drawn, said in [
        (torch.tensor([0.5]), r"drawn is torch.float32 of shape \(1,\); expected int64"),
        (torch.zeros(1, 2, dtype=torch.int64), r"drawn is torch.int64 of shape \(1, 2\)"),
        (torch.tensor([3, 12]), "sample index in drawn 12 is out of range; expected 0 to 11"),
    ]:
        with pytest.raises(MethodError, match=said):
            method.begin_epoch(0, 2, drawn=drawn)
    index = torch.tensor([7, 8])
    with pytest.warns(UserWarning, match="never called"), pytest.raises(MethodError, match="begin_epoch"):
        speak(method, index, torch.randn(2, 2))


def test_before_the_first_epoch_a_shared_memory_remembers_nothing():
    """What looks at the loss only, in evaluation mode, needs no epoch."""
    method, index = shared_out(2)[0].eval(), torch.tensor([7, 8])
    logits = torch.randn(2, 2)
    alone = create_method("kd", class_counts=(8, 4), teacher="previous_epoch").eval()
    assert torch.equal(speak(method, index, logits).per_sample, speak(alone, index, logits).per_sample)


def test_samples_that_were_not_said_to_be_drawn_are_refused():
    methods = shared_out(2)

    def work(rank, reduce):
        methods[rank].reduce = reduce
        methods[rank].begin_epoch(0, 2, drawn=torch.arange(rank, 12, 2))
        return methods[rank]

    first, second = Group.run(2, work)
    speak(first, torch.tensor([0, 2, 5]), torch.randn(3, 2))  # 5 lies in its own block
    with pytest.raises(MethodError, match=r"sample 4 is not among those of begin_epoch\(..., drawn=\)"):
        speak(second, torch.tensor([1, 4]), torch.randn(2, 2))
    assert not second.previous_epoch.memory.rows.written.value.any()


def test_a_memory_is_shared_out_before_anything_else():
    method = create_method("kd", class_counts=(8, 4), teacher="previous_epoch")
    with pytest.raises(MethodError, match="rank is 2 of 2 processes"):
        method.split_memory(2, 2)
    method.begin_epoch(0, 2)
    with pytest.raises(MethodError, match="before anything is remembered"):
        method.split_memory(0, 2)
    create_method("kd", class_counts=(8, 4)).split_memory(0, 2)  # without a memory there is nothing to share
