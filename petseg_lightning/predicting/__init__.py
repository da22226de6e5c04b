"""Pictures in, masks, overlays, cut-outs and a table out."""
