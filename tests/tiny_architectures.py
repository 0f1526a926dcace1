"""Tiny, randomly initialized models of any architecture of transformers that reads text, built from its configuration.

The tables at the end say which architectures can be teachers, and why others cannot.
"""

from typing import Any

import torch
from transformers import MODEL_MAPPING, BertConfig, PreTrainedConfig, PreTrainedModel, ViTConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY, WIDTH, HEADS = 65, 32, 2  # as many tokens as the tokenizer of helpers.py
# Sizes by the names that configurations give them. What is not listed keeps its default.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        """hidden_size d_model n_embd dim emb_dim embed_dim embedding_size hidden_dim text_embed_dim model_dim width
        n_state mm_hidden_size text_hidden_size audio_hidden_size embedding_dim project_dim projection_dim
        out_hidden_size projector_hidden_size word_embed_proj_dim attention_hidden_size encoder_hidden_size
        backbone_hidden_size conv_dim linear_attn_hidden_size lru_width d_embed hidden_size_per_layer_input
        proj_dim output_dim vision_hidden_size image_hidden_size lm_hidden_size""".split(), WIDTH),
    **dict.fromkeys(
        """intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff d_inner n_inner dim_ff ffn_hidden_size
        moe_intermediate_size shared_expert_intermediate_size mlp_dim feed_forward_size expert_dim ffn_size
        shared_intermediate_size moe_shared_expert_intermediate_size dense_intermediate_size projector_ffn_dim
        intermediate_size_mlp dim_feedforward""".split(), 64),
    **dict.fromkeys(
        """num_hidden_layers num_layers n_layers n_layer encoder_layers decoder_layers num_decoder_layers
        num_encoder_layers depth n_head_layers temporal_num_hidden_layers num_hidden_groups
        num_mem_blocks mit_num_hidden_layers""".split(), 2),
    **dict.fromkeys(
        """num_attention_heads num_heads n_heads n_head num_key_value_heads encoder_attention_heads
        decoder_attention_heads num_kv_heads attention_heads num_query_heads linear_num_key_heads
        linear_num_value_heads mit_num_attention_heads num_query_groups decoder_num_attention_heads
        encoder_num_attention_heads kv_n_heads n_kv_heads""".split(), HEADS),
    **dict.fromkeys("head_dim d_kv d_head attention_head_dim kv_channels global_head_dim v_head_dim".split(), 16),
    **dict.fromkeys("linear_key_head_dim linear_value_head_dim qk_nope_head_dim index_head_dim".split(), 16),
    **dict.fromkeys("q_lora_rank kv_lora_rank qk_rope_head_dim rotary_dim".split(), 8),
    **dict.fromkeys(
        """num_experts n_routed_experts num_local_experts moe_num_experts n_experts num_routed_experts""".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_topk moe_k top_k_experts num_selected_experts moe_top_k".split(), 2),
    **dict.fromkeys("n_group topk_group num_expert_groups first_k_dense_replace n_shared_experts".split(), 1),
    **dict.fromkeys("vocab_size text_vocab_size vocab_size_per_layer_input".split(), VOCABULARY),
    "image_size": 32, "patch_size": 16, "num_channels": 3, "num_mel_bins": 16, "max_position_embeddings": 64,
    "n_positions": 64, "spatial_patch_size": 16,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip


def shrunk(values: dict) -> dict:
    """The fields of a configuration with small sizes, and with token ids that a small vocabulary has."""
    small: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            small[name] = shrunk(value)
        elif name == "pad_token_id":
            small[name] = 0  # also where the default is none
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            small[name] = min(value, SIZES[name]) if value > 0 else value
        elif name in ("layer_types", "mlp_layer_types", "moe_layers", "no_rope_layers") and isinstance(value, list):
            small[name] = None  # derived from the number of layers
        elif name == "mrope_section":
            small[name] = [2, 3, 3]
        elif str(name).endswith(("token_id", "token_index")) and isinstance(value, int) and value >= VOCABULARY:
            small[name] = 45 + sum(map(ord, name)) % 20
        elif name not in ("transformers_version", "architectures", "_name_or_path", "dtype"):
            small[name] = value
    return small


# Fields that the sizes above do not make consistent.
_ROTARY = {"text_config": {"rope_parameters": {"mrope_section": [2, 3, 3]}}}
_BOTH_ATTENTIONS = {
    "layer_types": ["linear_attention", "full_attention"]
}  # with linear attention alone, no cache works
FIELDS: dict[str, dict] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "glm4v"), _ROTARY),
    "bridgetower": {"vision_config": {"hidden_size": 64}},
    **dict.fromkeys(("chameleon", "emu3"), {"vocabulary_map": {"<image>": 60}}),
    "clvp": {"text_config": {"num_attention_heads": 1}},
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), {"text_config": _BOTH_ATTENTIONS}),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"), _BOTH_ATTENTIONS),
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2},
}


def updated(values: dict, more: dict) -> dict:
    """Nested dicts `values` with the entries of `more`."""
    for name, value in more.items():
        known = values.get(name)
        values[name] = updated(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return values


def tiny_config(model_type: str) -> PreTrainedConfig:
    """The configuration of a tiny model of a type that `AutoConfig` knows."""
    kind = CONFIG_MAPPING[model_type]
    return kind.from_dict(updated(shrunk(kind().to_dict()), FIELDS.get(model_type, {})))


def complete_model(model_type: str) -> PreTrainedModel:
    """A complete tiny model, in eval mode, with the same weights each time."""
    torch.manual_seed(0)
    if model_type == "vision-text-dual-encoder":
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS, "intermediate_size": 64}
        text, vision = BertConfig(**sizes, vocab_size=VOCABULARY), ViTConfig(**sizes, image_size=32)
        config = CONFIG_MAPPING[model_type].from_vision_text_configs(vision, text)
    else:
        config = tiny_config(model_type)
    model_class = MODEL_MAPPING[type(config)]
    return (model_class[0] if isinstance(model_class, tuple) else model_class)(config).eval()


# These read text without anything else, and teach.
READS_TEXT = tuple(
    """aimv2 albert align altclip aria aya_vision bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot
    blenderbot-small blip blip-2 bloom bridgetower camembert chameleon chinese_clip clap clip clipseg clvp cohere
    cohere2_vision convbert ctrl data2vec-text deberta deberta-v2 deepseek_vl deepseek_vl_hybrid distilbert electra
    emu3 ernie ernie4_5 eurobert evolla exaone4 exaone4_5 falcon falcon_mamba flaubert flava florence2 fnet funnel
    fuyu gemma gemma2 gemma3 gemma3_text git glm glm4 glm4_moe glm4v got_ocr2 gpt2 gpt_bigcode gpt_neox gpt_oss gptj
    granite granite_speech granitemoe groupvit gte ibert idefics2 idefics3 instructblip instructblipvideo internvl
    jamba janus jina_embeddings_v3 kosmos-2 kosmos-2.5 layoutlm lfm2 lfm2_vl lighton_ocr llama llama4 llama4_text
    llava llava_next llava_next_video llava_onevision longformer longt5 m2m_100 mamba marian mbart megatron-bert
    metaclip_2 ministral3 mistral mistral3 mixtral mllama mobilebert modernbert modernvbert mpnet mpt mra mt5
    nomic_bert nystromformer olmo olmo2 olmo3 olmoe openai-gpt opt ovis2 owlv2 owlvit paligemma pe_audio pegasus
    persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_5
    qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_vl qwen3_vl_moe recurrent_gemma rembert
    roberta roc_bert roformer rwkv sam3 seamless_m4t siglip siglip2 smollm3 smolvlm splinter squeezebert stablelm
    starcoder2 switch_transformers t5 t5gemma t5gemma2 umt5 video_llava vipllava vision-text-dual-encoder
    visual_bert voxtral xclip xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm yoso""".split()
)
# These need more than text, or return something else than a state for each token.
CANNOT = {
    "vilt": "reads a picture with every text",
    "lxmert": "reads features of picture regions with every text",
    "idefics": "its language model attends to a picture in every layer",
    "udop": "reads the place of every token on a page",
    "videoprism": "adds an extra token to every text",
    "bros": "reads the place of every token on a page",
    "xmod": "reads the language of every text",
    "canine": "reads characters, without a vocabulary",
}
