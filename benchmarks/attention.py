"""Times attention on CPUs without dropout: PyTorch's fused kernel (SDPA) and two plain matrix products.

    python benchmarks/attention.py

Prints the speed-up of the plain products by precision and length (median of 9 interleaved rounds), for a forward pass
and for forward and backward. `vidlankd_hf.models.cpu_kernels.SHORT` comes from these numbers.
"""

import argparse
import time
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention


def products(query, key, value):
    return (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(-1) @ value


def seconds(attend, inputs, gradient) -> float:
    start = time.perf_counter()
    if gradient is None:
        with torch.no_grad():
            attend(*inputs)
    else:
        torch.autograd.grad(attend(*inputs), inputs, gradient)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 192, 256, 384, 512])
    parser.add_argument("--tokens", type=int, default=1024, help="tokens per batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default: %(default)s)")
    args = parser.parse_args()
    print("| precision | length | forward, SDPA ms | products faster | with backward, SDPA ms | products faster |")
    print("|---|---|---|---|---|---|")
    for precision, dtype in (("highest", torch.float32), ("medium", torch.float32), ("bf16", torch.bfloat16)):
        torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
        for length in args.lengths:
            shape = args.tokens // length, length, 8, 64
            inputs = [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
            cells = []
            for gradient in (None, torch.randn(shape, dtype=dtype).transpose(1, 2)):
                times = {scaled_dot_product_attention: [], products: []}
                for attend in times:
                    seconds(attend, inputs, gradient)
                for _ in range(args.rounds):
                    for attend, taken in times.items():
                        taken.append(seconds(attend, inputs, gradient))
                sdpa, ours = (median(taken) for taken in times.values())
                cells += [f"{1000 * sdpa:.1f}", f"{sdpa / ours:.2f} x"]
            print(f"| {precision} | {length} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
