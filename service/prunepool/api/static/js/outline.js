// The outline of a set of grid cells as an SVG path.

//: Clockwise around a cell: right along its top, down, left, up.
const SIDES = [
  [0, 0, 1, 0],
  [1, 0, 0, 1],
  [1, 1, -1, 0],
  [0, 1, 0, -1],
];

/**
 * The path around cells, a little inside of them, so that neighbours do not overlap.
 *
 * @param {number[]} cells row-major indices.
 * @param {number} columns of the grid.
 * @param {number} inset in cells.
 * @returns {string} one closed loop for each connected part and each hole.
 */
export function outline(cells, columns, inset = 0.05) {
  const edges = openEdges(new Set(cells), columns);
  const loops = [];
  while (edges.size) loops.push(traced(edges));
  return loops.map((loop) => closed(corners(loop), inset)).join("");
}

/** The sides that no second cell shares, by where they start. */
function openEdges(cells, columns) {
  const edges = new Map();
  for (const cell of cells) {
    const column = cell % columns;
    const row = (cell - column) / columns;
    const shut = [
      row > 0 && cells.has(cell - columns),
      column < columns - 1 && cells.has(cell + 1),
      cells.has(cell + columns),
      column > 0 && cells.has(cell - 1),
    ];
    SIDES.forEach(([x, y, dx, dy], side) => {
      if (shut[side]) return;
      const key = `${column + x},${row + y}`;
      edges.set(key, [...(edges.get(key) ?? []), { x: column + x, y: row + y, dx, dy }]);
    });
  }
  return edges;
}

/** Follow edges to a closed loop, taking them out; where two go on, turn right: cells that touch at a corner part. */
function traced(edges) {
  const [first] = edges.values().next().value;
  const loop = [];
  let edge = first;
  do {
    loop.push(edge);
    const from = `${edge.x},${edge.y}`;
    const rest = edges.get(from).filter((other) => other !== edge);
    if (rest.length) edges.set(from, rest);
    else edges.delete(from);
    const onward = edges.get(`${edge.x + edge.dx},${edge.y + edge.dy}`) ?? [];
    const { dx, dy } = edge;
    edge = onward.find((next) => next.dx === -dy && next.dy === dx) ?? onward[0];
  } while (edge && edge !== first);
  return loop;
}

/** Where the loop turns: the point, and the two directions. */
function corners(loop) {
  return loop
    .map((edge, i) => ({ edge, before: loop.at(i - 1) }))
    .filter(({ edge, before }) => edge.dx !== before.dx || edge.dy !== before.dy)
    .map(({ edge, before }) => ({ x: edge.x, y: edge.y, edge, before }));
}

/** A path through the corners, each moved inwards: the inside lies to the right of every edge. */
function closed(points, inset) {
  const moved = points.map(({ x, y, edge, before }) => {
    const right = x + inset * (-edge.dy - before.dy);
    const down = y + inset * (edge.dx + before.dx);
    return `${+right.toFixed(3)} ${+down.toFixed(3)}`;
  });
  return `M${moved.join("L")}Z`;
}
