"""Serving: the gateway, the model server and the command that runs both."""
