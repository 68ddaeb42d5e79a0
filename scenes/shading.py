"""Materials and backdrop as Blender node trees, for the four fidelities.

Works on the node trees that `scenes.blender` hands in and needs no bpy of its own. Fidelities: `flat` is analytic Lambert
shading in an emission node tree; `textured` has textures and a sun with shadows and highlights at little more than the cost of
`flat`: of what a surface reflects only the ambient share reaches another one, and the sky lights nothing; `lit` has a sun,
shadows and a uniform sky, `pbr` principled materials and a gradient sky.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from scenes.spec import Background, Light, Material, Vec3

Fidelity = Literal["flat", "textured", "lit", "pbr"]

ANALYTIC: frozenset[Fidelity] = frozenset({"flat", "textured"})  # the sky lights nothing
ROUGHNESS = {"matte": 0.9, "gloss": 0.25, "metal": 0.3}
METALLIC = {"matte": 0.0, "gloss": 0.0, "metal": 1.0}
HIGHLIGHT = {"matte": 0.0, "gloss": 0.05, "metal": 0.1}  # share of the sun that `textured` reflects like a mirror
TEXTURE_SHADE = 0.55  # the darker tone of a texture, as a share of the albedo


class Nodes:
    """A node tree being written: adds nodes and links their sockets in one call each."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.tree.nodes.clear()

    def add(self, kind: str, inputs: dict[int | str, Any] | None = None, **properties: Any) -> Any:
        """Add a node, set its properties, then its inputs: a value, or an output socket to link."""
        node = self.tree.nodes.new(kind)
        for name, value in properties.items():
            setattr(node, name, value)
        for key, value in (inputs or {}).items():
            if isinstance(value, float | int | tuple):
                node.inputs[key].default_value = value
            else:
                self.tree.links.new(value, node.inputs[key])
        return node

    def math(self, operation: str, *values: Any) -> Any:
        """Add a Math node and return its output."""
        return self.add("ShaderNodeMath", dict(enumerate(values)), operation=operation).outputs[0]

    def vector(self, operation: str, *values: Any, output: str = "Vector") -> Any:
        """Add a Vector Math node and return its output."""
        return self.add("ShaderNodeVectorMath", dict(enumerate(values)), operation=operation).outputs[output]


def shade(tree: Any, material: Material, light: Light, fidelity: Fidelity) -> None:
    """Write a material's node tree: emission only for highlights, otherwise what the fidelity says."""
    nodes = Nodes(tree)
    if material.emission > 0.0:
        surface = _glow(nodes, material)
    elif fidelity == "flat":
        surface = _lambert(nodes, material, light)
    elif fidelity == "textured":
        surface = _sunlit(nodes, material, light)
    elif fidelity == "lit":
        albedo = (*material.albedo, 1.0)
        surface = nodes.add("ShaderNodeBsdfDiffuse", {"Color": albedo, "Roughness": 0.0}).outputs[0]
    else:
        surface = _principled(nodes, material)
    nodes.add("ShaderNodeOutputMaterial", {"Surface": surface}, target="ALL")


def _glow(nodes: Nodes, material: Material) -> Any:
    """Emit `emission` times the albedo, whatever the fidelity."""
    color = (*material.albedo, 1.0)
    return nodes.add("ShaderNodeEmission", {"Color": color, "Strength": material.emission}).outputs[0]


def _lambert(nodes: Nodes, material: Material, light: Light) -> Any:
    """Emit albedo * strength * (ambient + (1 - ambient) * max(0, n.l)): Lambert's law without light transport."""
    toward_3 = np.asarray(light.direction) / np.linalg.norm(light.direction)
    normal = nodes.add("ShaderNodeNewGeometry").outputs["Normal"]
    cosine = nodes.vector("DOT_PRODUCT", normal, tuple(toward_3.tolist()), output="Value")
    share = nodes.math("MULTIPLY_ADD", nodes.math("MAXIMUM", cosine, 0.0), 1.0 - light.ambient, light.ambient)
    strength = nodes.math("MULTIPLY", share, light.strength)
    return nodes.add("ShaderNodeEmission", {"Color": (*material.albedo, 1.0), "Strength": strength}).outputs[0]


def _sunlit(nodes: Nodes, material: Material, light: Light) -> Any:
    """Reflect the sun, with its shadow and a highlight, and emit the ambient share, which is thus free of noise."""
    albedo = _textured(nodes, material)
    ambient = nodes.add("ShaderNodeEmission", {"Color": albedo, "Strength": light.strength * light.ambient}).outputs[0]
    surface = nodes.add("ShaderNodeBsdfDiffuse", {"Color": albedo, "Roughness": 0.0}).outputs[0]
    if HIGHLIGHT[material.finish] > 0.0:
        shine = nodes.add("ShaderNodeBsdfGlossy", {"Roughness": ROUGHNESS[material.finish]}).outputs[0]
        surface = nodes.add("ShaderNodeMixShader", {0: HIGHLIGHT[material.finish], 1: surface, 2: shine}).outputs[0]
    return nodes.add("ShaderNodeAddShader", {0: ambient, 1: surface}).outputs[0]


def _principled(nodes: Nodes, material: Material) -> Any:
    return nodes.add(
        "ShaderNodeBsdfPrincipled",
        {
            "Base Color": _textured(nodes, material),
            "Roughness": ROUGHNESS[material.finish],
            "Metallic": METALLIC[material.finish],
            "IOR": 1.5,
        },
    ).outputs[0]


def _textured(nodes: Nodes, material: Material) -> Any:
    """Return the base colour: the albedo, or a procedural pattern between the albedo and a darker tone of it."""
    albedo = (*material.albedo, 1.0)
    if material.texture == "none":
        return albedo
    dark = (*(TEXTURE_SHADE * part for part in material.albedo), 1.0)
    place = nodes.add("ShaderNodeTexCoord").outputs["Object"]
    if material.texture == "checker":
        return nodes.add("ShaderNodeTexChecker", {"Vector": place, "Color1": albedo, "Color2": dark, "Scale": 6.0}).outputs[
            "Color"
        ]
    if material.texture == "noise":
        node = nodes.add("ShaderNodeTexNoise", {"Vector": place, "Scale": 6.0, "Detail": 4.0}, noise_dimensions="3D")
        factor = node.outputs[0]
    else:
        node = nodes.add(
            "ShaderNodeTexWave",
            {"Vector": place, "Scale": 2.0, "Distortion": 4.0, "Detail": 2.0},
            wave_type="RINGS",
            rings_direction="Z",
        )
        factor = node.outputs[1]
    mix = nodes.add("ShaderNodeMix", {"Factor": factor, 6: albedo, 7: dark}, data_type="RGBA", blend_type="MIX")
    return mix.outputs[2]


def sky(tree: Any, background: Background, light: Light, fidelity: Fidelity) -> None:
    """Write the world's node tree: the camera sees the backdrop; in `lit` and `pbr` surfaces see a sky instead."""
    nodes = Nodes(tree)
    backdrop = nodes.add("ShaderNodeBackground", {"Color": _gradient(nodes, background), "Strength": 1.0}).outputs[0]
    if fidelity == "flat":
        nodes.add("ShaderNodeOutputWorld", {"Surface": backdrop})
        return
    if fidelity == "textured":  # the gradient is only defined in the picture: a surface that saw it would see garbage
        camera_ray = nodes.add("ShaderNodeLightPath").outputs["Is Camera Ray"]
        nodes.tree.links.new(camera_ray, backdrop.node.inputs["Strength"])
        nodes.add("ShaderNodeOutputWorld", {"Surface": backdrop})
        return
    color = (1.0, 1.0, 1.0, 1.0) if fidelity == "lit" else _dome(nodes)
    around = nodes.add("ShaderNodeBackground", {"Color": color, "Strength": light.strength * light.ambient}).outputs[0]
    seen = nodes.add("ShaderNodeLightPath").outputs["Is Camera Ray"]
    mixed = nodes.add("ShaderNodeMixShader", {0: seen, 1: around, 2: backdrop}).outputs[0]
    nodes.add("ShaderNodeOutputWorld", {"Surface": mixed})


def _gradient(nodes: Nodes, background: Background) -> Any:
    """Return a colour that runs straight from the bottom of the picture to its top.

    Window coordinates are those of a point at infinity, so a lens blurs the straight gradient into itself.
    """
    bottom: Vec3 = background.bottom
    if background.bottom == background.top:
        return (*bottom, 1.0)
    rise = tuple(top - low for top, low in zip(background.top, bottom, strict=True))
    window = nodes.add("ShaderNodeTexCoord").outputs["Window"]
    height = nodes.add("ShaderNodeSeparateXYZ", {0: window}).outputs["Y"]
    return nodes.vector("MULTIPLY_ADD", height, rise, bottom)


def _dome(nodes: Nodes) -> Any:
    """Return a soft sky of mean radiance 1: dim below, bright above, with a broad bright band for reflections."""
    direction = nodes.add("ShaderNodeTexCoord").outputs["Generated"]
    height = nodes.add("ShaderNodeSeparateXYZ", {0: direction}).outputs["Z"]
    ramp = nodes.add("ShaderNodeValToRGB", {0: nodes.math("MULTIPLY_ADD", height, 0.5, 0.5)})
    stops = ramp.color_ramp
    stops.interpolation = "LINEAR"
    stops.elements[0].position, stops.elements[0].color = 0.0, (0.5, 0.5, 0.5, 1.0)
    stops.elements[1].position, stops.elements[1].color = 1.0, (1.0, 1.0, 1.0, 1.0)
    for position, value in ((0.48, 0.6), (0.55, 1.6), (0.75, 1.6)):
        stops.elements.new(position).color = (value, value, value, 1.0)
    return ramp.outputs["Color"]
