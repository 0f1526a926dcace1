"""Real English nouns: pictures from package registries teach a real language model, scored by public benchmarks."""
