"""asyncio clients and connection."""
