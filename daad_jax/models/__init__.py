"""The networks: block-wise memories, backbones, autoencoder and discriminator."""
