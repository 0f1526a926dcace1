"""One script per job; `vidlankd COMMAND` runs them. An installed package has them as `vidlankd_hf.examples`."""
