"""The pure core: planning, pricing, publishing and the doors to the outside. Knows no Ray and no server."""
