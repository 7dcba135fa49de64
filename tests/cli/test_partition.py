"""``halfstep partition``: any model's blocks and bytes from the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from halfstep.cli.main import main

Captured = pytest.CaptureFixture[str]


def output(capsys: Captured, *argv: str) -> str:
    assert main(["partition", *argv]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def complaint(capsys: Captured, *argv: str) -> str:
    """Return the one line that wrong input gives, with exit status 2."""
    assert main(["partition", *argv]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))  # what is imported from here, is found here only
    path = tmp_path / "nets.py"
    path.write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, width=5):\n"
        "        super().__init__(torch.nn.Linear(width, 7), torch.nn.LayerNorm(7))\n"
        "def counting(width):\n"
        "    return torch.nn.Linear(int(torch.ones(width).sum().item()), 2)\n"
        "ready = Net(3)\n"
        "number = 5\n"
        "def broken():\n"
        "    raise KeyError('no_such_file')\n"
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head_dim = 4\n"
        "        self.q_proj, self.k_proj = torch.nn.Linear(3, 10), torch.nn.Linear(3, 10)\n"
    )
    return path


def test_a_model_in_a_file(model_file: Path, capsys: Captured) -> None:
    text = output(capsys, "--model", f"{model_file}:Net", "--set", "width=11")
    assert text.splitlines()[0] == f"Net of {model_file}:Net"
    assert "0.weight   7x11   row           7          336  dense layer: by output unit" in text
    assert "1.weight   7      tensor        1           32  gain of LayerNorm: one block" in text
    # 77 + 7 + 7 + 7 numbers; second moments 7 + 7 + 1 + 7
    assert "AdamW, float32 moments          784 bytes" in text
    assert "AdamMini, float32 first moment  480 bytes" in text
    assert "AdamMini, bfloat16 first moment 284 bytes" in text
    assert "0.weight   7x3 " in output(capsys, "--model", f"{model_file}:ready")
    assert "weight     2x13 " in output(capsys, "--model", f"{model_file}:counting", "--set", "width=13")


def test_json_holds_the_same(model_file: Path, capsys: Captured) -> None:
    found: dict[str, Any] = json.loads(
        output(capsys, "--model", f"{model_file}:Net", "--norm", "element", "--json")
    )
    assert found["parameters"] == 5 * 7 + 3 * 7
    assert found["blocks"] == 4 * 7
    assert found["state_bytes"]["adamw"] == 8 * 56
    assert found["state_bytes"]["adam_mini"] == {
        "float32": 4 * (56 + 28), "bfloat16": 2 * 56 + 4 * 28, "int8": 56 + 4 * 4 + 4 * 28
    }  # fmt: skip
    assert found["table"][2] == {
        "name": "1.weight", "shape": [7], "kind": "element", "blocks": 7, "trained": True,
        "reason": "gain of LayerNorm: by element, as asked",
    }  # fmt: skip


def test_a_module_path_and_its_value_option(capsys: Captured) -> None:
    argv = ("--model", "torch.nn:MultiheadAttention", "--set", "embed_dim=16", "num_heads=4")
    assert "48x16  head         24" in output(capsys, *argv)
    assert "48x16  head          9" in output(capsys, *argv, "--value", "tensor")


def test_a_module_beside_the_working_folder(
    model_file: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_file.parent)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert "0.weight   7x5 " in output(capsys, "--model", "nets:Net")


@pytest.mark.parametrize("name", ["tiny", "default"])
def test_a_preset(name: str, capsys: Captured) -> None:
    text = output(capsys, "--model", f"preset:{name}")
    assert "not recognised" not in text
    assert "by head of" in text
    assert "encoder.norm.gain" in text
    assert "vector of RevIN: by element, as asked" in text


def test_weights_by_their_shapes(tmp_path: Path, capsys: Captured) -> None:
    save_file(
        {"a.weight": torch.zeros(7, 5), "a.count": torch.zeros(3, dtype=torch.int64)},
        tmp_path / "1.safetensors",
    )
    save_file({"b.weight": torch.zeros(3, 2, dtype=torch.bfloat16)}, tmp_path / "2.safetensors")
    one = output(capsys, "--model", str(tmp_path / "1.safetensors"))
    assert "a.weight   7x5    row        7          168  matrix without a module: by row" in one
    assert "a.count" not in one
    both = json.loads(output(capsys, "--model", str(tmp_path), "--json"))
    assert [row["name"] for row in both["table"]] == ["a.weight", "b.weight"]
    assert both["state_bytes"]["adamw"] == 8 * 41


def test_a_configuration_of_hugging_face(capsys: Captured) -> None:
    pytest.importorskip("transformers", reason="models of transformers: install the extra zoo")
    sizes = ("--set", "hidden_size=30", "num_hidden_layers=1", "num_attention_heads=6", "num_key_value_heads=2", "head_dim=14", "vocab_size=67", "intermediate_size=44")  # fmt: skip
    text = output(capsys, "--model", "transformers:Qwen3Config", *sizes)
    assert "Qwen3ForCausalLM of transformers:Qwen3Config" in text
    assert "self_attn.q_proj.weight          84x30  head         6 " in text
    assert "k_proj.weight          28x30  head         2 " in text
    clip = ("--set", "text_config.hidden_size=40", "vision_config.num_hidden_layers=1")
    assert "text_model.final_layer_norm.weight                       40 " in output(capsys, "--model", "transformers:CLIP", *clip)  # fmt: skip
    for argv, message in [
        (("--model", "transformers:Qwen3Confg"), "transformers has no Qwen3ConfgConfig. The nearest is Qwen3Config."),
        (("--model", "transformers:Qwen3", "--set", "hiden_size=3"), "Qwen3Config has no hiden_size. The nearest is hidden_size."),
        (("--model", "transformers:CLIP", "--set", "text_config.hiden_size=3"), "CLIPConfig has no text_config.hiden_size. The nearest is hidden_size."),
        (("--model", "transformers:GenerationConfig"), "GenerationConfig describes no model by itself"),
        (("--model", "transformers:Llama", "--set", "hidden_size=three"), "LlamaConfig cannot be built: "),
        (("--model", "transformers:Llama", "--set", "hidden_size=33"), "LlamaConfig cannot be built: "),
    ]:  # fmt: skip
        assert message in complaint(capsys, *argv)


def test_without_transformers_the_way_out_is_named(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = complaint(capsys, "--model", "transformers:Qwen3Config")
    assert "needs the package transformers. Install it with: pip install transformers" in message


@pytest.mark.pitfall("U11")
def test_wrong_input_is_one_line(model_file: Path, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "faulty.py").write_text("width + 1")
    (tmp_path / "noise.safetensors").write_bytes(b"no weights")
    save_file({"count": torch.zeros(3, dtype=torch.int64)}, tmp_path / "counts.safetensors")
    for argv, message in [
        (["foo"], "--model: 'foo', must be transformers:NAMEConfig"),
        (["nowhere.at.all:Net"], "nowhere.at.all cannot be imported: No module named 'nowhere'"),
        ([f"{tmp_path}/faulty.py:Net"], "faulty.py cannot be imported: name 'width' is not defined."),
        ([f"{model_file}:broken"], "broken cannot be built: 'no_such_file'"),
        (["nowhere.py:Net"], f"no file at {Path('nowhere.py').absolute()}"),
        ([f"{model_file}:Nest"], "has no 'Nest'. The nearest is Net."),
        ([f"{model_file}:number"], "5, must be or make a torch module"),
        ([f"{model_file}:Net", "--set", "widht=3"], "Net cannot be built"),
        ([f"{model_file}:Net", "--set", "width"], "--set: 'width', must be NAME=VALUE"),
        ([f"{model_file}:Broken"], "q_proj.weight: 10 output units, but its Broken states heads of 4"),
        (["preset:huge"], "preset: 'huge', must be one of tiny, default"),
        (["preset:tiny", "--set", "width=3"], "--set: width, but a preset takes no settings"),
        ([str(tmp_path / "empty")], "no .safetensors file at"),
        (["absent.safetensors"], "no .safetensors file at"),
        ([str(tmp_path / "noise.safetensors")], "not a whole safetensors file"),
        ([str(tmp_path / "counts.safetensors")], "no floating-point tensors"),
        ([str(tmp_path / "counts.safetensors"), "--set", "a=1"], "a file of weights takes no settings"),
    ]:
        assert message in complaint(capsys, "--model", *argv)
    assert main(["partition"]) == 2  # the flag parser's own message


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from halfstep.cli.main import main; main(['partition', '--help']);"
        "assert not {'torch', 'numba', 'polars', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "--model" in done.stdout
