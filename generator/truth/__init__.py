"""Ground truth of a scene: depth, flow, instances, normals, the sharp clip, cameras, boxes and tracks; as arrays and as files.

It belongs to the sharp pinhole picture at mid-exposure, once per scene. docs/truth.md says what every file holds.
Not here: rendering (`generator/render/`), proving it (`generator/verify/`), reading a version (`generator/versions/reading/`).
"""
