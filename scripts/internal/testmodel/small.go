package testmodel

import (
	"encoding/json"
	"fmt"
	"strings"
)

// vocabulary is the number of words in the tokenizer: about 700 KB of JSON, so
// that one of the small files is not tiny.
const vocabulary = 32000

// smallFiles returns the ten files beside the shards, by path.
func smallFiles(o Options, weights map[string]string) map[string]string {
	return map[string]string{
		".gitattributes":               "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n",
		"LICENSE":                      "Random numbers. No rights are claimed.\n",
		"README.md":                    fmt.Sprintf("---\nlicense: cc0-1.0\n---\n# A model of random weights\n\n%d bytes in %d shards, seed %d. It says nothing of use.\n", o.Size, o.Shards, o.Seed),
		"chat_template.jinja":          "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
		"config.json":                  encode(config(len(weights))),
		"generation_config.json":       encode(map[string]any{"bos_token_id": 1, "eos_token_id": 2, "do_sample": false}),
		"model.safetensors.index.json": encode(map[string]any{"metadata": map[string]any{"total_size": o.Size}, "weight_map": weights}),
		"special_tokens_map.json":      encode(map[string]any{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
		"tokenizer.json":               tokenizer(),
		"tokenizer_config.json":        encode(map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 2048}),
	}
}

func config(layers int) map[string]any {
	return map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "torch_dtype": "bfloat16",
		"hidden_size": hidden, "intermediate_size": rows, "num_hidden_layers": layers, "num_attention_heads": 16, "vocab_size": vocabulary}
}

// tokenizer returns a word-level tokenizer that the tokenizers library loads.
func tokenizer() string {
	vocab := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	for i := len(vocab); i < vocabulary; i++ {
		vocab[word(i)] = i
	}
	return encode(map[string]any{"version": "1.0", "added_tokens": []any{}, "pre_tokenizer": map[string]any{"type": "Whitespace"},
		"model": map[string]any{"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}})
}

// word spells a number in syllables: different numbers, different words.
func word(n int) string {
	var b strings.Builder
	for ; n > 0; n /= 85 {
		b.WriteByte("bcdfghjklmnprstvz"[n%85%17])
		b.WriteByte("aeiou"[n%85/17])
	}
	return b.String()
}

// encode indents as the Hub's own files are. Maps of strings always encode.
func encode(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("testmodel: " + err.Error())
	}
	return string(text) + "\n"
}
