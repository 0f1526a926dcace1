"""Launch configurations for `accelerate launch --config_file`; an installed package also has them."""
