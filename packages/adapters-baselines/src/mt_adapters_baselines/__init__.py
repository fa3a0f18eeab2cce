"""What multi-task adapters are compared with (LoRA, BitFit, bottleneck adapters, VPT, hyper-networks, PEFT), as a plugin of mt-adapters."""
