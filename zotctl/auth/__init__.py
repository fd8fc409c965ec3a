"""Who are you, and what may you do: users, the ways to log in, and policies. It knows no HTTP and no storage."""
