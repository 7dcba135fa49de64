"""Architectures of the world, tiny and with odd sizes: their blocks are right, and they train.

What is expected is worked out here from the sizes of each configuration and the documented layout of each model.
Models of transformers and peft are skipped where those packages are not installed; the others need torch alone.
"""

import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Partition, partition_model

WIDTH, HIDDEN, TOKENS, LENGTH = 30, 44, 67, 9
Expected = Mapping[str, int | tuple[tuple[int, int], ...]]
"""Pattern on names to the number of blocks, or to the runs of rows and rows per block."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(partition: Partition, expected: Expected) -> None:
    """Compare blocks by pattern, and see that everything is recognised and no matrix is one block."""
    for pattern, wanted in expected.items():
        found = {n: s for n, s in partition.specs.items() if fnmatch.fnmatchcase(n, pattern)}
        assert found, f"{pattern} matches none of {list(partition.specs)}"
        for name, spec in found.items():
            assert (spec.blocks if isinstance(wanted, int) else spec.sections) == wanted, f"{name}: {spec}"
    for name, spec in partition.specs.items():
        assert "not recognised" not in spec.reason, f"{name}: {spec.reason}"
        assert "nothing says" not in spec.reason, f"{name}: {spec.reason}"
        if sum(size > 1 for size in spec.shape) > 1:
            assert spec.kind != "tensor", f"{name}: {spec}"


def train(model: nn.Module, loss: Callable[[nn.Module], Tensor], *, steps: int = 6, lr: float = 3e-3) -> None:
    """Train on one batch and see the loss fall."""
    optimizer = AdamMini.for_model(model.eval(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        losses.append(value.item())
        optimizer.step()
    losses.append(loss(model).item())
    assert losses[-1] < losses[0], losses
    assert all(math.isfinite(value) for value in losses)


# ---------------------------------------------------------------- transformers


def separate(heads: int, kv_heads: int, dim: int, width: int = WIDTH, prefix: str = "*") -> Expected:
    """Queries and keys by head, values and outputs by unit, under the names of Llama."""
    return {
        f"{prefix}.q_proj.weight": heads,
        f"{prefix}.k_proj.weight": kv_heads,
        f"{prefix}.v_proj.weight": kv_heads * dim,
        f"{prefix}.o_proj.weight": width,
    }


def named(names: str, heads: int, dim: int, width: int = WIDTH) -> Expected:
    """The same for multi-head attention under other names: query, key, value, output."""
    return dict(zip(names.split(), (heads, heads, heads * dim, width), strict=True))


class HuggingFace(NamedTuple):
    """A model of transformers: class, configuration and its sizes, inputs, and the blocks expected of it."""

    model: str
    sizes: Mapping[str, Any]
    expected: Expected
    inputs: str = "causal"
    config: str = ""


LLAMA = {"vocab_size": TOKENS, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 2,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
GROUPED = LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 14}
PLAIN = LLAMA | {"num_attention_heads": 5, "num_key_value_heads": 1}  # heads of 6
BERT = {"vocab_size": TOKENS, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": 5, "max_position_embeddings": 17, "pad_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": TOKENS, "n_embd": WIDTH, "n_layer": 1, "n_head": 5, "n_positions": 17, "n_inner": HIDDEN,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
MOE = {"num_experts_per_tok": 2, "experts_implementation": "eager"}
FALCON = {"vocab_size": TOKENS, "hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 6,
          "bos_token_id": 1, "eos_token_id": 2, "alibi": False, "ffn_hidden_size": HIDDEN}  # fmt: skip
LATENT = LLAMA | MOE | {
    "num_attention_heads": 3, "num_key_value_heads": 3, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4, "v_head_dim": 7, "moe_intermediate_size": 14, "n_routed_experts": 4,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
DEEPSEEK = {
    "*.kv_a_proj_with_mqa.weight": 10 + 4,
    "*.kv_b_proj.weight": 3 * (6 + 7),
    "*.self_attn.o_proj.weight": WIDTH,
    "*.experts.gate_up_proj": 4 * 2 * 14,
    "*.experts.down_proj": 4 * WIDTH,
    "model.layers.1.mlp.gate.weight": 4,
}
ENCODER_DECODER = {
    "vocab_size": TOKENS, "d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 5,
    "decoder_attention_heads": 3, "encoder_ffn_dim": HIDDEN, "decoder_ffn_dim": 34, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
BART_BLOCKS = {
    **{f"*encoder.layers.*.self_attn.{role}_proj.weight": 5 for role in "qk"},
    **{f"*decoder.layers.*_attn.{role}_proj.weight": 3 for role in "qk"},
    "*.v_proj.weight": WIDTH,
    "*.out_proj.weight": WIDTH,
}

ZOO: dict[str, HuggingFace] = {
    "Llama": HuggingFace("LlamaForCausalLM", GROUPED, separate(6, 2, 14) | {"lm_head.weight": TOKENS, "model.embed_tokens.weight": TOKENS, "*.gate_proj.weight": HIDDEN, "*.down_proj.weight": WIDTH}),
    "Mistral": HuggingFace("MistralForCausalLM", PLAIN, separate(5, 1, 6)),
    "Qwen2": HuggingFace("Qwen2ForCausalLM", PLAIN, separate(5, 1, 6)),
    "Qwen3": HuggingFace("Qwen3ForCausalLM", GROUPED, separate(6, 2, 14) | {"*.q_norm.weight": 1}),
    "Qwen3-MoE": HuggingFace("Qwen3MoeForCausalLM", GROUPED | MOE | {"num_experts": 5, "moe_intermediate_size": 14}, separate(6, 2, 14) | {"*.experts.gate_up_proj": 5 * 28, "*.experts.down_proj": 5 * WIDTH, "*.mlp.gate.weight": 5}),
    "Qwen3-Next": HuggingFace(
        "Qwen3NextForCausalLM",
        GROUPED | MOE | {"num_hidden_layers": 4, "head_dim": 16, "num_experts": 5, "moe_intermediate_size": 14, "shared_expert_intermediate_size": 22, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 6, "linear_value_head_dim": 5},
        {"*.q_proj.weight": 2 * 6, "*.k_proj.weight": 2, "*.linear_attn.in_proj_qkvz.weight": 2 * 2 * 6 + 2 * 4 * 5},  # queries and their gates
    ),
    "Gemma": HuggingFace("GemmaForCausalLM", GROUPED | {"num_key_value_heads": 1}, separate(6, 1, 14)),
    "Gemma 2": HuggingFace("Gemma2ForCausalLM", GROUPED, separate(6, 2, 14)),
    "Gemma 3": HuggingFace("Gemma3ForCausalLM", GROUPED, separate(6, 2, 14), config="Gemma3TextConfig"),
    "Mixtral": HuggingFace("MixtralForCausalLM", PLAIN | MOE | {"num_local_experts": 3, "intermediate_size": 22}, separate(5, 1, 6) | {"*.experts.gate_up_proj": 3 * 44, "*.experts.down_proj": 3 * WIDTH, "*.mlp.gate.weight": 3}),
    "GPT-OSS": HuggingFace("GptOssForCausalLM", GROUPED | MOE | {"num_local_experts": 3, "intermediate_size": 22}, separate(6, 2, 14) | {"*.experts.gate_up_proj": 3 * 44, "*.experts.down_proj": 3 * WIDTH, "*.experts.down_proj_bias": 3 * WIDTH}),
    "Llama 4": HuggingFace("Llama4ForCausalLM", GROUPED | {"num_local_experts": 3, "intermediate_size": 22, "intermediate_size_mlp": HIDDEN, "interleave_moe_layer_step": 1, "attention_chunk_size": 16}, separate(6, 2, 14) | {"*.experts.gate_up_proj": 3 * 44, "*.experts.down_proj": 3 * WIDTH}, config="Llama4TextConfig"),
    "DeepSeek-V2": HuggingFace("DeepseekV2ForCausalLM", LATENT | {"q_lora_rank": None}, DEEPSEEK | {"*.self_attn.q_proj.weight": 3}),
    "DeepSeek-V3": HuggingFace("DeepseekV3ForCausalLM", LATENT | {"q_lora_rank": 9}, DEEPSEEK | {"*.q_a_proj.weight": 9, "*.q_b_proj.weight": 3 * (6 + 4)}),
    "Phi": HuggingFace("PhiForCausalLM", LLAMA | {"hidden_size": 36, "num_attention_heads": 3}, {"*.q_proj.weight": 3, "*.k_proj.weight": 3, "*.v_proj.weight": 36, "*.dense.weight": 36}),
    "Phi-3": HuggingFace("Phi3ForCausalLM", LLAMA | {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2}, {"*.qkv_proj.weight": ((36 + 12, 6), (12, 1)), "*.o_proj.weight": 36, "*.gate_up_proj.weight": 2 * HIDDEN}),
    "GPT-2": HuggingFace("GPT2LMHeadModel", GPT2, {"*.c_attn.weight": ((60, 6), (30, 1)), "*.attn.c_proj.weight": WIDTH, "*.c_fc.weight": HIDDEN, "*.mlp.c_proj.weight": WIDTH, "*.wpe.weight": 17}),
    "GPT-BigCode": HuggingFace("GPTBigCodeForCausalLM", GPT2, {"*.c_attn.weight": ((36, 6), (6, 1))}),
    "GPT-BigCode, multi-head": HuggingFace("GPTBigCodeForCausalLM", GPT2 | {"multi_query": False}, {"*.c_attn.weight": ((12, 6), (6, 1)) * 5}),
    "GPT-NeoX": HuggingFace("GPTNeoXForCausalLM", LLAMA | {"hidden_size": 40, "num_attention_heads": 5}, {"*.query_key_value.weight": ((16, 8), (8, 1)) * 5, "*.attention.dense.weight": 40}),
    "GPT-J": HuggingFace("GPTJForCausalLM", GPT2 | {"rotary_dim": 4}, {"*.q_proj.weight": 5, "*.k_proj.weight": 5, "*.v_proj.weight": WIDTH, "*.out_proj.weight": WIDTH}),
    "CodeGen": HuggingFace("CodeGenForCausalLM", GPT2 | {"n_embd": 48, "n_head": 8, "rotary_dim": 4}, {"*.qkv_proj.weight": ((12, 6), (12, 1), *((24, 6), (12, 1)) * 3, (12, 6))}),
    "BLOOM": HuggingFace("BloomForCausalLM", {"vocab_size": TOKENS, "hidden_size": WIDTH, "n_layer": 1, "n_head": 5, "bos_token_id": 1, "eos_token_id": 2}, {"*.query_key_value.weight": ((12, 6), (6, 1)) * 5}),
    "Falcon, grouped": HuggingFace("FalconForCausalLM", FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True}, {"*.query_key_value.weight": ((24, 6), (6, 1)) * 2}),
    "Falcon, multi-query": HuggingFace("FalconForCausalLM", FALCON | {"multi_query": True, "new_decoder_architecture": False}, {"*.query_key_value.weight": ((42, 6), (6, 1))}),
    "Falcon, multi-head": HuggingFace("FalconForCausalLM", FALCON | {"multi_query": False, "new_decoder_architecture": False}, {"*.query_key_value.weight": ((12, 6), (6, 1)) * 6}),
    "OPT": HuggingFace("OPTForCausalLM", {"vocab_size": TOKENS, "hidden_size": WIDTH, "ffn_dim": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 5, "max_position_embeddings": 17, "word_embed_proj_dim": 14, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}, {"*.q_proj.weight": 5, "*.k_proj.weight": 5, "*.v_proj.weight": WIDTH, "*.out_proj.weight": WIDTH}),
    "Mamba": HuggingFace("MambaForCausalLM", LLAMA | {"num_hidden_layers": 1, "state_size": 5}, {"*.in_proj.weight": 2 * HIDDEN, "*.conv1d.weight": HIDDEN, "*.A_log": HIDDEN, "*.D": 1}),
    "BERT": HuggingFace("BertForMaskedLM", BERT, named("*.query.weight *.key.weight *.value.weight *.attention.output.dense.weight", 5, 6)),
    "RoBERTa": HuggingFace("RobertaForMaskedLM", BERT, named("*.query.weight *.key.weight *.value.weight *.attention.output.dense.weight", 5, 6)),
    "DeBERTa-v2": HuggingFace("DebertaV2ForMaskedLM", BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": False}, named("*.query_proj.weight *.key_proj.weight *.value_proj.weight *.attention.output.dense.weight", 5, 6) | {"*.pos_key_proj.weight": 5, "*.pos_query_proj.weight": 5}),
    "DeBERTa": HuggingFace("DebertaForMaskedLM", BERT, {"*.self.in_proj.weight": ((12, 6), (6, 1)) * 5, "*.attention.output.dense.weight": WIDTH}),
    "MiniMax": HuggingFace(
        "MiniMaxForCausalLM", GROUPED | MOE | {"num_local_experts": 3, "intermediate_size": 22, "layer_types": ["linear_attention", "full_attention"]},
        separate(6, 2, 14, prefix="*.layers.1.self_attn") | {"*.layers.0.self_attn.qkv_proj.weight": ((28, 14), (14, 1)) * 6},
    ),
    "XLNet": HuggingFace("XLNetLMHeadModel", {"vocab_size": TOKENS, "d_model": WIDTH, "n_layer": 1, "n_head": 5, "d_head": 6, "d_inner": HIDDEN}, {"*.rel_attn.q": ((30, 6),), "*.rel_attn.k": ((30, 6),), "*.rel_attn.v": 30, "*.rel_attn.r": 30, "*.rel_attn.o": WIDTH, "*.seg_embed": 10}),
    "Funnel Transformer": HuggingFace("FunnelForMaskedLM", {"vocab_size": TOKENS, "d_model": WIDTH, "n_head": 3, "d_head": 7, "d_inner": HIDDEN, "block_sizes": [1, 1], "num_decoder_layers": 1}, named("*.q_head.weight *.k_head.weight *.v_head.weight *.post_proj.weight", 3, 7) | {"*.r_kernel": 21}),
    "DistilBERT": HuggingFace("DistilBertForMaskedLM", {"vocab_size": TOKENS, "dim": WIDTH, "hidden_dim": HIDDEN, "n_layers": 1, "n_heads": 5, "max_position_embeddings": 17, "pad_token_id": 0}, named("*.q_lin.weight *.k_lin.weight *.v_lin.weight *.out_lin.weight", 5, 6)),
    "ModernBERT": HuggingFace("ModernBertForMaskedLM", LLAMA | {"hidden_size": 40, "num_attention_heads": 5, "cls_token_id": 1, "sep_token_id": 2}, {"*.Wqkv.weight": ((80, 8), (40, 1)), "*.attn.Wo.weight": 40}),
    "T5": HuggingFace("T5ForConditionalGeneration", {"vocab_size": TOKENS, "d_model": WIDTH, "d_kv": 7, "d_ff": HIDDEN, "num_layers": 1, "num_heads": 3, "decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}, named("*.q.weight *.k.weight *.v.weight *.o.weight", 3, 7)),
    "BART": HuggingFace("BartForConditionalGeneration", ENCODER_DECODER | {"max_position_embeddings": 17, "forced_eos_token_id": 2}, BART_BLOCKS),
    "Whisper": HuggingFace("WhisperForConditionalGeneration", ENCODER_DECODER | {"num_mel_bins": 8, "max_source_positions": 15, "max_target_positions": 17}, BART_BLOCKS | {"*.conv1.weight": WIDTH}, "speech"),
    "ViT": HuggingFace("ViTForImageClassification", {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 5, "image_size": 12, "patch_size": 4, "num_labels": 3}, {"*.q_proj.weight": 5, "*.k_proj.weight": 5, "*.v_proj.weight": WIDTH, "*.cls_token": 1, "*.position_embeddings": 10, "*.projection.weight": WIDTH}, "image"),
    "Swin": HuggingFace("SwinForImageClassification", {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 3], "window_size": 3, "image_size": 12, "patch_size": 2, "num_labels": 3}, {"*.layers.0.*.q_proj.weight": 2, "*.layers.1.*.k_proj.weight": 3, "*.layers.1.*.v_proj.weight": 24, "*.relative_position_bias_table": 25}, "image"),
    "ConvNeXt": HuggingFace("ConvNextForImageClassification", {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 12, "num_labels": 3}, {"*.stages.0.*.dwconv.weight": 8, "*.stages.1.*.pwconv1.weight": 48}, "image"),
    "CLIP": HuggingFace(
        "CLIPModel",
        {"text_config": {"vocab_size": TOKENS, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 5, "max_position_embeddings": 17, "bos_token_id": 1, "eos_token_id": 2}, "vision_config": {"hidden_size": 28, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 12, "patch_size": 4}, "projection_dim": 22},
        {"text_model.*.q_proj.weight": 5, "vision_model.*.k_proj.weight": 4, "vision_model.*.v_proj.weight": 28, "visual_projection.weight": 22}, "pair",
    ),
}  # fmt: skip


def batch(inputs: str) -> dict[str, Any]:
    """Return a seeded batch of two samples with the target that makes the model return a loss."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, TOKENS, (2, LENGTH), generator=generator)
    image = torch.randn(2, 3, 12, 12, generator=generator)
    if inputs == "image":
        return {"pixel_values": image, "labels": torch.tensor([0, 2])}
    if inputs == "pair":
        return {"input_ids": tokens, "pixel_values": image, "return_loss": True}
    if inputs == "speech":
        return {"input_features": torch.randn(2, 8, 30, generator=generator), "labels": tokens}
    return {"input_ids": tokens, "labels": tokens}


def hugging_face(case: HuggingFace) -> nn.Module:
    """Return the model with seeded weights; skips where transformers is not installed."""
    transformers = pytest.importorskip("transformers", reason="models of transformers: install the extra zoo")
    transformers.logging.set_verbosity_error()
    model_class = getattr(transformers, case.model)
    config = getattr(transformers, case.config) if case.config else model_class.config_class
    torch.manual_seed(0)
    model: nn.Module = model_class._from_config(config(**case.sizes), attn_implementation="eager")
    return model


@pytest.mark.pitfall("O1", "O2", "O3", "O4", "O5", "O7")
@pytest.mark.parametrize("name", ZOO)
def test_models_of_transformers(name: str) -> None:
    case = ZOO[name]
    model = hugging_face(case)
    check(partition_model(model), case.expected)
    train(model, lambda m: m(**batch(case.inputs)).loss)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers
@pytest.mark.pitfall("O6")
@pytest.mark.parametrize("base", ["Llama", "GPT-2"])
def test_adapters_of_peft(base: str) -> None:
    peft = pytest.importorskip("peft", reason="LoRA adapters: install the extra zoo")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"] if base == "Llama" else ["c_attn"]
    model = peft.get_peft_model(
        hugging_face(ZOO[base]), peft.LoraConfig(r=4, target_modules=targets, fan_in_fan_out=base == "GPT-2")
    )
    expected: Expected = {"*.lora_A.default.weight": 4}
    if base == "Llama":
        factors = separate(6, 2, 14)
        expected |= {k.replace("_proj.", "_proj.lora_B.default."): v for k, v in factors.items()}
        expected |= {k.replace("_proj.", "_proj.base_layer."): v for k, v in factors.items()}
    else:
        expected |= {
            "*.lora_B.default.weight": ((60, 6), (30, 1)),
            "*.c_attn.base_layer.weight": ((60, 6), (30, 1)),
        }
    partition = partition_model(model)
    check(partition, expected)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert partition.adamw_bytes() == 8 * trained
    train(model, lambda m: m(**batch("causal")).loss, lr=3e-2)


@pytest.mark.pitfall("O23")
def test_state_formula_of_seven_billion_parameters() -> None:
    transformers = pytest.importorskip("transformers", reason="Llama 2's sizes: install the extra zoo")
    with torch.device("meta"):
        partition = partition_model(transformers.LlamaForCausalLM(transformers.LlamaConfig()))
    weights = 2 * 32_000 * 4_096 + 32 * (4 * 4_096**2 + 3 * 4_096 * 11_008)
    rows = 2 * 32_000 + 32 * (5 * 4_096 + 2 * 11_008)
    gains = 65  # vectors of 4,096
    assert partition.adamw_bytes() == 8 * (weights + gains * 4_096) == 53_907_324_928
    assert partition.state_bytes() == 4 * (weights + rows + gains * 4_097)
    assert partition.adamw_bytes() / 1e9 == pytest.approx(53.92, abs=0.02)
    assert partition.state_bytes() / 1e9 == pytest.approx(26.96, abs=0.005)


# ---------------------------------------------------------------- torch alone


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.body = kind(5, 7, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)[0])


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, kdim=5, vdim=7, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :5], x[..., 5:])[0]


class Residual(nn.Module):
    """A block of ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm, self.pwconv1 = nn.LayerNorm(channels), nn.Linear(channels, 4 * channels)
        self.pwconv2, self.gamma = (
            nn.Linear(4 * channels, channels),
            nn.Parameter(torch.full((channels, 1, 1), 0.1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x).permute(0, 2, 3, 1)))))
        return x + self.gamma * y.permute(0, 3, 1, 2)


class TimmAttention(nn.Module):
    """The attention of timm's vision transformers."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm, self.k_norm = nn.LayerNorm(self.head_dim), nn.LayerNorm(self.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 12))
        self.pos_embed = nn.Parameter(torch.zeros(1, 10, 12))
        self.norm1, self.attn, self.head = nn.LayerNorm(12), TimmAttention(12, 4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        return self.head((x + self.attn(self.norm1(x)))[:, 0])


class Denoiser(nn.Module):
    """A small U-Net of a diffusion model: time embedding, down, attention in the middle, up."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 8))
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(16, 5, 4, 2, 1)
        self.norm, self.middle, self.out = (
            nn.GroupNorm(2, 8),
            TimmAttention(8, 2),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x) + self.time(torch.linspace(0, 1, 6))[:, None, None]
        tokens = self.middle(self.norm(low).flatten(2).transpose(1, 2))
        up = self.up(torch.cat([low, tokens.transpose(1, 2).unflatten(2, low.shape[2:])], 1))
        return self.out(torch.cat([x, up], 1))


class GraphLayer(nn.Module):
    """Mean over neighbours, stored [in, out] as the graph networks of the literature write it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.randn(in_features, out_features) / in_features**0.5)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        ring = torch.eye(len(x)) + torch.eye(len(x)).roll(1, 0) + torch.eye(len(x)).roll(-1, 0)
        return ring / 3 @ x @ self.weight + self.bias


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(12, 3, 22, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(12, 4, 26, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x, self.encoder(x))


TORCH: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Expected]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)), (4, 5), {"0.weight": 7, "2.weight": 3}),
    "encoder and decoder": (EncoderDecoder, (2, 6, 12), {"encoder.self_attn.in_proj_weight": ((24, 4), (12, 1)), "decoder.*_attn.in_proj_weight": ((24, 3), (12, 1)), "*_attn.out_proj.weight": 12, "encoder.linear1.weight": 22, "decoder.linear2.weight": 12}),
    "attention with other widths": (CrossAttention, (2, 6, 12), {"*.q_proj_weight": 3, "*.k_proj_weight": 3, "*.v_proj_weight": 12}),
    "LSTM": (lambda: Recurrent(nn.LSTM), (2, 6, 5), {"body.weight_*": 28, "body.bias_*": 28}),
    "GRU": (lambda: Recurrent(nn.GRU), (2, 6, 5), {"body.weight_*": 21, "body.bias_*": 21}),
    "ResNet": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), (2, 3, 9, 9), {"0.weight": 8, "1.conv?.weight": 8, "1.bn?.weight": 1, "1.bn?.bias": 8, "4.weight": 5}),
    "ConvNeXt": (lambda: nn.Sequential(nn.Conv2d(3, 6, 4, 4), ConvNeXtBlock(6), nn.Flatten(), nn.Linear(24, 5)), (2, 3, 8, 8), {"1.dwconv.weight": 6, "1.pwconv1.weight": 24, "1.pwconv2.weight": 6, "1.gamma": 6}),
    "vision transformer of timm": (VisionTransformer, (2, 3, 12, 12), {"attn.qkv.weight": ((24, 3), (12, 1)), "attn.proj.weight": 12, "patch_embed.weight": 12, "pos_embed": 10, "cls_token": 1, "attn.q_norm.weight": 1}),
    "diffusion U-Net": (Denoiser, (2, 3, 8, 8), {"down.weight": 8, "up.weight": 5, "middle.qkv.weight": ((16, 4), (8, 1)), "time.0.weight": 10}),
    "graph network": (lambda: nn.Sequential(GraphLayer(5, 7), nn.ReLU(), GraphLayer(7, 3)), (6, 5), {"0.weight": 7, "2.weight": 3}),
    "autoencoder": (lambda: nn.Sequential(nn.Conv1d(3, 7, 5, 2), nn.ReLU(), nn.ConvTranspose1d(7, 3, 5, 2)), (2, 3, 11), {"0.weight": 7, "2.weight": 3}),
    "bag of words": (lambda: nn.Sequential(nn.Embedding(11, 5), nn.Flatten(), nn.Linear(20, 3)), (2, 4), {"0.weight": 11, "2.weight": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_models_of_torch(name: str) -> None:
    build, shape, expected = TORCH[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(shape)
    if name == "bag of words":
        x = x.abs().mul(3).long()
    target = torch.randn(model(x).shape)
    check(partition_model(model), expected)
    train(model, lambda m: F.mse_loss(m(x), target), lr=1e-2)
