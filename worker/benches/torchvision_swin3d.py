"""The twin of `swin.rs` in PyTorch: medians of torchvision's swin3d_t on two threads.

pip install torch torchvision
"""

import statistics
import sys
import time

import torch
from torchvision.models.video import swin3d_t
from torchvision.models.video.swin_transformer import SwinTransformer3d

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
torch.set_num_threads(2)


def measure(name, run):
    run()
    wall, cpu = [], []
    for _ in range(RUNS):
        start = (time.perf_counter(), time.process_time())
        run()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    print(f"{name}: {statistics.median(wall):.3f} s wall, {statistics.median(cpu):.3f} s CPU (median of {RUNS})")


def both(name, model, shape):
    model.head = torch.nn.Identity()
    model.eval()
    clips = torch.randn(shape)
    projection = torch.randn_like(model(clips))

    def forward():
        with torch.no_grad():
            model(clips)

    def step():
        model.zero_grad()
        (model(clips) * projection).sum().backward()

    measure(f"{name}, forward", forward)
    measure(f"{name}, forward and backward", step)


both("Swin-T 1x3x16x112x112", swin3d_t(), (1, 3, 16, 112, 112))
quick_start = SwinTransformer3d([2, 4, 4], 24, [1, 1, 2, 1], [1, 2, 4, 8], [8, 7, 7], stochastic_depth_prob=0.0)
both("quick start 3x3x32x56x56", quick_start, (3, 3, 32, 56, 56))
