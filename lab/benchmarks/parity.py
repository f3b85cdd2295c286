"""Check numerical parity with the published code.

    python lab/benchmarks/parity.py DIR...

Reads folders of recorded inputs, outputs and random weights (`config.json` and safetensors), loads the
weights through `streamingt2v.checkpoints`, and prints name, max abs error, tolerance, ok or FAIL for each
output. Exits 1 on any FAIL. Sizes, seeds and frame counts come from the folder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script, it has no package

from lab.benchmarks.golden import (
    ChunkMaker,
    Golden,
    RecordedEncoder,
    build_cam,
    build_tokens,
    build_unet,
    group,
)
from lab.compare.whole import plan_seams, solve, warp_errors
from streamingt2v.convert.streaming_t2v import load_part, split
from streamingt2v.metrics.mawe import warp
from streamingt2v.models import encoder
from streamingt2v.models.apm import AppearanceAttention, preprocess
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers import blend, sdedit
from streamingt2v.samplers.guidance import guide
from streamingt2v.stages.memory import StreamMemory

TOLERANCE = 1e-4
"""Tolerance relative to the recorded values' root mean square, at least 1. Rounding between machines is
about 1e-6.
"""

Results = Iterator[tuple[str, torch.Tensor]]


def unet_cam(golden: Golden) -> Results:
    """Run the base network with mergers and APM, the CAM encoder, and inner traces."""
    arch, given = golden.config, golden.inputs
    parts = split(golden.weights)
    net, cam = build_unet(arch, parts), build_cam(arch, parts)
    latents, timestep, text = given["noisy_latents"], given["timestep"], given["text_embeds"]
    frames_BTCHW = given["controlnet_cond"].unflatten(0, (len(latents), -1))
    embedding = cam.encode_frames(frames_BTCHW)
    features = cam(latents, timestep, text, embedding)
    num_frames = frames_BTCHW.shape[1]
    for level, feature in enumerate(features.down):
        yield f"cam_down_{level}", feature[num_frames : 2 * num_frames]
    yield "cam_mid", features.mid
    yield "eps", net(latents, timestep, text, given["image_tokens"], features)
    yield "eps_without_cam", net(latents, timestep, text, given["image_tokens"])
    yield from unet_cam_traces(golden, net, cam, embedding)


def unet_cam_traces(
    golden: Golden, net: StreamingUNet3D, cam: ConditionalAttentionModule, embedding: torch.Tensor
) -> Results:
    """Yield mergers and APM on recorded inputs, and CAM's frame embedding."""
    traces = golden.traces
    for name in sorted(traces):
        if match := re.fullmatch(r"merger_(?:down_(\d+)|mid)\.output", name):
            merger = (
                net.cross_attention_merger_down_blocks[int(match[1])]
                if match[1]
                else net.cross_attention_merger_mid_block
            )
            query, feature = (
                traces[name.replace("output", part)] for part in ("query_features", "cam_features")
            )
            yield (
                name,
                merger(query.flatten(0, 1), feature.flatten(0, 1), batch=len(query)).unflatten(
                    0, query.shape[:2]
                ),
            )
    if "apm.context_93" in traces:
        text, image = traces["apm.context_93"].split(
            [golden.config["num_text_tokens"], golden.config["num_image_tokens"]], dim=1
        )
        yield (
            "apm.context_mixed",
            net.down_blocks[0].attentions[0].transformer_blocks[0].attn2.mix(text, image),
        )
    if "cam_cond_embedding" in traces:
        shown = len(traces["cam_cond_embedding"])
        yield "cam_cond_embedding", embedding[0, :shown]
        entered = encoder.enter(cam, golden.inputs["noisy_latents"][:, :, : embedding.shape[1]])
        yield "cam_sample_after_cond_addition", (entered + embedding.flatten(0, 1))[:shown]


def apm(golden: Golden) -> Results:
    """Yield anchor tokens from one or several frames, and cross-attention with the image mixed in."""
    config, given = golden.config, golden.inputs
    tokens = build_tokens(split(group(golden.weights, "resampler.", keep=True)), config["num_image_tokens"])
    yield "tokens_1frame", tokens(given["embed_1frame"])
    batch = len(golden.outputs["tokens_5frames"])
    yield "tokens_5frames", tokens(given["embed_5frames_flat"].unflatten(0, (batch, -1)))
    yield "tokens_3d", tokens(given["embed_3d"])
    sizes = config["attn"]
    text, image = given["attn_context"].split([config["num_text_tokens"], config["num_image_tokens"]], dim=1)
    for name in ("attn_pos", "attn_neg"):
        layer = AppearanceAttention(
            sizes["query_dim"],
            config["cross_attention_dim"],
            sizes["heads"],
            sizes["dim_head"],
            0,
            text.shape[1],
            image.shape[1],
        )
        load_part(layer, group(golden.weights, f"{name}."), name)
        mixed = layer.mix(text, image)
        yield f"{name}.context_mixed", mixed
        yield f"{name}.out", layer(given["attn_hidden_states"], (layer.context(mixed),))


def clip_preprocess(golden: Golden) -> Results:
    """Yield images as CLIP's encoder gets them; every second pixel is recorded."""
    for name, image in golden.inputs.items():
        pixels = preprocess(image, mean=golden.weights["mean"].tolist(), std=golden.weights["std"].tolist())
        yield f"pixel_values_from_{name.removeprefix('image_')}_every2", pixels[:, :, ::2, ::2]


def chunk(golden: Golden) -> Results:
    """Yield a guided DDIM chunk, without and with added noise."""
    given, config = golden.inputs, golden.config
    maker = ChunkMaker(
        golden, golden, [golden.path / config["unet_and_cam_weights"], golden.path / "weights.safetensors"]
    )
    backbone = maker.backbone
    memory = StreamMemory.start(given["previous_chunk_frames_01"] * 2 - 1, maker.overlap)
    scheduler = DDIMScheduler(**config["scheduler"])
    scheduler.set_timesteps(config["num_inference_steps"])
    yield "timesteps", scheduler.timesteps
    names, tokens = (
        ("image_tokens_uncond", "image_tokens_cond"),
        backbone.image_tokens(RecordedEncoder(golden).embeds),
    )
    yield from zip(names, tokens.chunk(2), strict=True)
    predictions: list[torch.Tensor] = []
    backbone.unet.register_forward_hook(lambda module, args, output: predictions.append(output))
    start = given["initial_latents"]
    noise = given["variance_noise_eta"].unflatten(1, (len(start), -1)).transpose(2, 3)
    plain, noisy = maker.latents(memory, start), maker.latents(memory, start, config["eta_run"], noise)
    yield "eta0.eps_first_step_cfg_batch", predictions[0]
    first4_TCHW = plain[-1][0, :, :4].transpose(0, 1) / backbone.vae.config.scaling_factor
    yield "eta0.decoded_raw_first4", backbone.vae.decode(first4_TCHW).sample
    yield "eta0.frames", to_unit(maker.backbone.decode(plain[-1]))
    yield "eta.frames_first4", to_unit(maker.backbone.decode(noisy[-1]))[:4]
    for name, per_step in (("eta0", plain), ("eta", noisy)):
        yield f"{name}.latents_per_step", per_step
        yield f"{name}.latents", per_step[-1]


def stream(golden: Golden) -> Results:
    """Yield consecutive chunks, up to the video's bytes."""
    weights = [golden.path / name for name in golden.config["weights"]]
    maker = ChunkMaker(golden, Golden(weights[-1].parent), weights)
    first = golden.inputs["first_chunk_frames"]
    memory = StreamMemory.start(first * 2 - 1, maker.overlap)
    chunks, kept = [], [first]
    for start in golden.inputs["initial_latents"]:
        frames = maker.backbone.decode(maker.latents(memory, start, golden.config["eta"])[-1])
        memory = memory.advance(frames[maker.overlap :])
        chunks.append(to_unit(frames))
        kept.append(chunks[-1][maker.overlap :])
    yield "generated_chunk_frames", torch.stack(chunks)
    # the published code truncates where this package rounds
    yield "merged_uint8", (torch.cat(kept) * 255).to(torch.uint8)


def to_unit(frames: torch.Tensor) -> torch.Tensor:
    """Map [-1, 1] to [0, 1]."""
    return frames * 0.5 + 0.5


def randomized_blending(golden: Golden) -> Results:
    """Yield the enhancer's schedule and solver around a toy denoiser, with recorded offsets and noise."""
    config, given = golden.config, golden.inputs
    schedule = sdedit.logsnr_cosine_interp()
    yield "schedule_sigmas_vp", schedule.sigmas
    nodes = sdedit.trailing_nodes(schedule, config["steps"], config["total_noise_levels"])
    yield "solver_sigmas_ve", torch.tensor([node.sigma for node in nodes] + [0.0])
    yield "timesteps", torch.tensor([node.timestep for node in nodes])
    noised = schedule.diffuse(given["video_latents"], given["noise"], config["total_noise_levels"] - 1)
    yield "noised_latents", noised
    windows = tuple(blend.windows(noised.shape[2], config["chunk_size"], config["overlap_size"]))
    first_parts: list[torch.Tensor] = []
    step = iter(range(len(nodes)))

    def predict_clean(x: torch.Tensor, timestep: int) -> torch.Tensor:
        index = next(step)
        parts = [
            toy_clean(golden, schedule, x[:, :, window.start : window.stop], timestep) for window in windows
        ]
        first_parts.extend(parts if index == 0 else [])
        seams = plan_seams(windows, "code", lambda number, high: int(given["offsets"][index, number]))
        return blend.assemble(parts, windows, seams)

    path = solve(predict_clean, noised, nodes, lambda index: given["sde_noise"][index], exact_start=False)
    steps = {done.index: done for done in path}
    kept = golden.outputs["kept_steps"]
    yield "kept_steps", torch.tensor([index for index in kept.tolist() if index in steps])
    yield "chunk_x0_first_step", torch.stack(first_parts)
    yield (
        "model_input_per_kept_step",
        torch.stack([steps[index].model_input_BCTHW for index in kept.tolist()]),
    )
    yield "blended_x0_per_kept_step", torch.stack([steps[index].clean_BCTHW for index in kept.tolist()])
    yield "final_latents", steps[len(nodes) - 1].latents_BCTHW


def toy_clean(golden: Golden, schedule: sdedit.VPSchedule, x: torch.Tensor, timestep: int) -> torch.Tensor:
    """Return the guided clean prediction of a window by the recorded toy network."""
    weights, config = golden.weights, golden.config

    def velocity(text: torch.Tensor) -> torch.Tensor:
        shift = timestep / 1000 * weights["time_weight"] + text.mean() * weights["text_weight"]
        return torch.tanh(
            F.conv3d(x, weights["conv_weight"], weights["conv_bias"], padding=1) + shift[:, None, None, None]
        )

    negative, positive = (velocity(golden.inputs[name]) for name in ("text_neg", "text_pos"))
    return schedule.clean_from_v(
        x, guide(negative, positive, config["guide_scale"], config["guide_rescale"]), timestep
    )


def motion_aware_warp_error(golden: Golden) -> Results:
    """Yield warp error and motion for given flows, edge cases included."""
    video_TCHW = golden.inputs["video_uint8"].numpy()
    for variant in sorted(name for name in golden.inputs if name.startswith("flows")):
        flows = golden.inputs[variant].numpy()
        prefix = variant.removeprefix("flows").lstrip("_") + "_" if variant != "flows" else ""
        errors = warp_errors(video_TCHW, flows)
        warped = [warp(frame, flow) for frame, flow in zip(video_TCHW, flows, strict=False)]
        pictures = torch.stack([torch.from_numpy(picture) for picture, _ in warped])
        results = {
            "warped": pictures,
            "warped_pair0": pictures[:1],
            "unknown_mask": torch.stack([~torch.from_numpy(known_HW) for _, known_HW in warped]).float(),
            "warp_error": torch.from_numpy(errors.error),
            "motion": torch.from_numpy(errors.motion),
            "mawe": torch.tensor(errors.mean_of_ratios(golden.config["coeff"])),
            "mawe_coeff3": torch.tensor(errors.mean_of_ratios(3)),
        }
        yield from (
            (prefix + name, value) for name, value in results.items() if prefix + name in golden.outputs
        )


# ---------------------------------------------------------------- comparing

CHECKS: dict[str, Callable[[Golden], Results]] = {
    "g1": unet_cam,
    "g2": apm,
    "g2b": clip_preprocess,
    "g3": chunk,
    "g3b": stream,
    "g4": randomized_blending,
    "g5": motion_aware_warp_error,
}
"""Prefix of a folder's name -> function that recomputes its outputs."""


def compare(actual: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Return (max abs error, tolerance). Integers must be equal; bytes truncated from floats may differ by
    1 occasionally.
    """
    if actual.shape != expected.shape:
        return float("inf"), 0.0
    if not expected.is_floating_point():
        rarely = expected.dtype == torch.uint8 and float((actual != expected).double().mean()) < 1e-3
        tolerance = 1.0 if rarely else 0.0
    else:
        tolerance = TOLERANCE * max(
            1.0, float(expected[expected.isfinite()].double().square().mean().sqrt().nan_to_num())
        )
    a, b = actual.double(), expected.double()
    difference = torch.where(a == b, torch.zeros_like(a), (a - b).abs())  # equal infinities do not differ
    return float(difference.nan_to_num(nan=float("inf"), posinf=float("inf")).max()), tolerance


@torch.no_grad()
def run(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Return (name, max abs error, tolerance) per recorded output; infinite if it was not computed."""
    kind = folder.resolve().name.split("_")[0]
    if kind not in CHECKS:
        raise SystemExit(
            f"{folder}: unknown kind of folder; its name must begin with one of {', '.join(CHECKS)}"
        )
    golden = Golden(folder)
    left = set(golden.outputs)
    for name, actual in CHECKS[kind](golden):
        left.discard(name)
        expected = golden.outputs.get(name, golden.traces.get(name))
        if expected is not None:
            yield name, *compare(actual, expected)
    yield from ((name, float("inf"), 0.0) for name in sorted(left))


def main(folders: list[str]) -> int:
    """Print the table; return 1 if anything fails."""
    if not folders:
        print(__doc__)
        return 2
    failed = False
    for folder in folders:
        for name, error, tolerance in run(Path(folder)):
            ok = error <= tolerance
            failed |= not ok
            print(
                f"{Path(folder).resolve().name + '/' + name:60} {error:10.3e} {tolerance:10.3e}",
                "ok" if ok else "FAIL",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
