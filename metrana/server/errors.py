"""What goes wrong between the server and whoever asks it."""


class UnauthenticatedError(PermissionError):
    """The caller did not show the server's token."""
