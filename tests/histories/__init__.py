"""Random histories of conversations, as clients of each API send them, and what must arrive of them at a provider.

A history here is neutral, a JSON value without a format: what is said, called and answered, and for every turn a number (`style`)
that chooses among the ways in which clients write the same. `generate` makes and shrinks histories, `render` writes them as clients
do, `facts` compares a history with what a provider received, `answers` reads what a client got, `gateway` asks the core.
"""
