"""Charts of the report as inline SVG, by theme; `figure` turns a drawing into the element.

Every function takes plain numbers and returns a `Chart`: the picture, a sentence that says in numbers what it
shows, and the table of its data. With nothing to draw, the picture is empty and the sentence says why.
"""
