"""The transports: siblings behind the one small interface of ``engine.transports.base``."""
