"""Operations on image batches (float32 NCHW in [0, 1]) and 8-bit images (uint8 NCHW): batched, differentiable where they can be."""
