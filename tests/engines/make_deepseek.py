"""A DeepSeek-V3 architecture of three layers with random weights, as a folder of safetensors. Made once.

Latent attention, a dense layer, then routed and shared experts in groups, and the stretched positions (YaRN) of R1. The sizes of the
latent heads are those that vLLM's CPU attention accepts; the spread of the weights is larger than usual, so that log-likelihoods differ.
"""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_smollm2 import CACHE, transformers_python

VOCABULARY = 1024
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}
CONFIG: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 163840,
    "rope_parameters": ROPE,
    "q_lora_rank": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "initializer_range": 0.08,
    "bos_token_id": VOCABULARY - 1,
    "eos_token_id": VOCABULARY - 1,
}


def deepseek_folder() -> Path:
    folder, python = CACHE / "deepseek-v3-tiny-f32", transformers_python()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".deepseek.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run([python, __file__, str(part)], check=True, timeout=600)
            add_tokenizer(part)
            part.rename(folder)
    return folder


def add_tokenizer(folder: Path) -> None:
    from bench.vocabulary import CHAT_TEMPLATE, tokenizer_json

    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(VOCABULARY)), encoding="utf-8")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")


def make(folder: Path, config: dict[str, Any] = CONFIG) -> None:
    """The bias that steers the choice of experts is drawn too; it would be zero."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0.0, 0.1)
    model.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
