// Package testmodel writes models for demos and measurements: real safetensors
// shards with bfloat16 tensors, their index, and the small files that come with
// a language model. The bytes depend on the options alone, so two machines make
// the same model, and writing is about as fast as the disk.
package testmodel
