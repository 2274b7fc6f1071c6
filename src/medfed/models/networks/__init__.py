"""The networks a task can name: one file each, with ``build(input_shape, outputs, **options) -> torch.nn.Module``.

input_shape: the shape of one input, without the batch. outputs: 1 (a logit, or a value) or the number of classes.
A factory in another package joins them by the entry-point group ``medfed.models``.
"""
