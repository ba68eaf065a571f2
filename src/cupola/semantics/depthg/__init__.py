"""DINO features, the DepthG head on them, and inference at two scales weighed by depth (spec-stage1 5)."""
