"""Dense layer: y = act(W x + b)."""

from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.activations import activation as activation_named
from halfstep.nn.initial import uniform_


class Dense(nn.Linear):
    """y = act(W x + b), W ``[out, in]`` uniform ±1/sqrt(in), b 0.

    A layer over concatenated inputs is one weight, too. Where one of the inputs is known long before the others, its
    columns of W are applied early: ``F.linear(x, layer.weight[:, :n], layer.bias)``.

    Args:
        in_features, out_features: sizes of x and y.
        activation: name, see `halfstep.nn.activations`.
        bias: whether there is a b.
    """

    def __init__(
        self, in_features: int, out_features: int, activation: str = "none", bias: bool = True
    ) -> None:
        self.activation = activation
        self._act = activation_named(activation)
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        """Draw first weights; `torch.nn.Linear` calls this, and would draw biases, too."""
        uniform_(self.weight, self.in_features)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Return y."""
        return self._act(super().forward(x))
