"""What marks are made of: key images, payloads, embedding, regularisers of weights, trigger inversion."""
