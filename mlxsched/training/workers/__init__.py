"""Training on several machines: data parallel, through MLX's distributed engine.

Every worker holds the whole model and trains on its share of each update's rows; the gradients are added up. Worker 0 is the
leader: it alone has a run directory, policies and a terminal, and tells the others what to do next. So a decision that depends
on time, signals or the disk is made once, and no two workers can wait for each other in different operations.

`launch` finds out how the process was started, `world` is what the workers say to each other, `engine` the engine of a worker,
`leader` and `follower` the two roles.
"""
