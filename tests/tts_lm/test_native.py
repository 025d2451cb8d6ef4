"""The compiled kernels against torch: products, layers, attention over pages, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from services.tts_lm.model.code_predictor import CodePredictor
from services.tts_lm.model.config import BlockConfig, load_config
from services.tts_lm.model.kv_cache import KvPool, Span
from services.tts_lm.model.layers import Rotary, run_stack
from services.tts_lm.model.matrix import Int8Matrix, Matrix, quantised
from services.tts_lm.model.sampling import Filter, RowSampling, draw
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.weights import load_weights
from services.tts_lm.native.library import Library, NativeMatrix
from services.tts_lm.native.stack import NativeBatch, NativeStack

SHAPES = [(1, 1), (7, 40), (8, 16), (24, 144), (259, 1000), (640, 1024)]


def matrix(kind: str, rows: int, columns: int) -> Matrix:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    if kind == "int8":
        return quantised(values)
    return values.to(getattr(torch, kind))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_a_product_is_the_sum_it_stands_for(library: Library, kind: str, shape: tuple[int, int], count: int) -> None:
    weight = matrix(kind, *shape)
    x = torch.randn(count, shape[1], generator=torch.Generator().manual_seed(count))
    wide = weight.wide() if isinstance(weight, Int8Matrix) else weight.float()
    expected = x.double() @ wide.double().T
    size = x.double().abs() @ wide.double().abs().T
    assert ((library.product(x, NativeMatrix(weight)) - expected).abs() <= 1e-6 * size + 1e-12).all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads(library: Library, kind: str) -> None:
    weight = NativeMatrix(matrix(kind, 1032, 1000))
    row = torch.randn(1, 1000)
    library.set_threads(1)
    alone = library.product(row, weight)
    library.set_threads(2)
    for count in (1, 2, 3, 4, 5, 8, 13):
        for place in range(count):
            rows = torch.randn(count, 1000)
            rows[place] = row
            assert torch.equal(library.product(rows, weight)[place], alone[0])


def test_int8_is_within_half_a_step_and_keeps_a_row_of_zeros() -> None:
    weight = torch.randn(5, 64)
    weight[2] = 0
    small = quantised(weight)
    assert ((small.wide() - weight).abs() <= small.scales[:, None] * 0.5001).all()
    assert not small.wide()[2].any()


def test_layers_over_scattered_pages_are_those_of_torch(library: Library, tiny: Path) -> None:
    config = load_config(tiny)
    block, weights = config.talker, load_weights(tiny, config, torch.float32, torch.device("cpu")).talker
    scattered = torch.tensor([40, 41, 7, 8, 9, 90, 3])
    spans, counts = [Span(16, 5), Span(0, 7, scattered)], [2, 3]
    rows = torch.randn(5, block.hidden_size)
    positions = torch.tensor([3, 4, 4, 5, 6])
    native, plain = filled_pool(block), filled_pool(block)
    rotary = Rotary(block, 64, torch.float32, torch.device("cpu"))

    expected = run_stack(rows, weights, block, rotary, rotary.at(positions), plain.prefill(spans, counts))
    got = NativeStack(library, weights, block, 64)(rows, positions, NativeBatch(native.memory, spans, counts))

    torch.testing.assert_close(got, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(native.memory, plain.memory, rtol=0, atol=5e-6)


def filled_pool(block: BlockConfig) -> KvPool:
    pool = KvPool(block, 128, torch.float32, torch.device("cpu"))
    pool.memory.normal_(generator=torch.Generator().manual_seed(3))
    return pool


def test_attention_over_many_positions_forgets_none(library: Library, tiny: Path) -> None:
    """Equal keys weigh all positions alike, so that the output is the mean of the values: each of them counts."""
    config = load_config(tiny)
    block = config.talker
    weights = load_weights(tiny, config, torch.float32, torch.device("cpu")).talker
    outputs = []
    for changed in (None, 0, 777, 1498):
        pool = KvPool(block, 1500, torch.float32, torch.device("cpu"))
        pool.memory[:, 1] = torch.randn(pool.memory[:, 1].shape, generator=torch.Generator().manual_seed(0))
        if changed is not None:
            pool.memory[:, 1, changed] += 50
        batch = NativeBatch(pool.memory, [Span(0, 1500)], [1])
        stack = NativeStack(library, weights, block, 1500)
        outputs.append(stack(torch.ones(1, block.hidden_size), torch.tensor([1499]), batch))
    assert all((other - outputs[0]).abs().max() > 1e-4 for other in outputs[1:])


@pytest.mark.parametrize("count", [1, 3])
def test_a_frame_in_one_call_is_the_frame_in_fifteen(library: Library, tiny: Path, count: int) -> None:
    """Drawn, with greedy rows and other settings beside it; the draws themselves are those of model/sampling.py."""
    config = load_config(tiny)
    weights = load_weights(tiny, config, torch.float32, torch.device("cpu"))
    talker = Talker(weights, config, 64, row_wise=False, library=library)
    predictor = CodePredictor(weights, config, talker, count, row_wise=False, library=library)
    generator = torch.Generator().manual_seed(count)
    rows = RowSampling(
        torch.tensor([False, True, False])[:count],
        torch.tensor([0.9, 1.0, 1.7])[:count],
        torch.tensor([5, 0, 0])[:count],
        torch.ones(count),
    )
    batch = Filter(all_greedy=False, any_greedy=True, top_k=None, top_p=False)
    for _ in range(20):
        hidden = torch.randn(count, config.talker.hidden_size, generator=generator)
        code0 = torch.randint(config.codebook_size, (count,), generator=generator)
        uniforms = torch.rand(count, config.codebook_count, generator=generator, dtype=torch.float64)
        expected = predictor.predict(hidden, code0, lambda c, x, u=uniforms: draw(x, u[:, c], rows, batch))
        assert torch.equal(predictor.frame(hidden, code0, uniforms, rows, batch), expected)


def test_two_engines_of_one_process_do_not_disturb_each_other(library: Library) -> None:
    weight = NativeMatrix(matrix("float32", 2048, 1024))
    inputs = [torch.randn(1, 1024) for _ in range(2)]
    expected = [library.product(x, weight) for x in inputs]
    wrong: list[int] = []

    def compute(index: int) -> None:
        products = (library.product(inputs[index], weight) for _ in range(200))
        wrong.extend(index for product in products if not torch.equal(product, expected[index]))

    threads = [threading.Thread(target=compute, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
