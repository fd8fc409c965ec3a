# Caddy in front of zotctl asks for the login, and names the user. In zotctl.toml, below [http]:
# trusted_proxies = ["127.0.0.1"] and user_header = "X-Forwarded-User"
# /etc/caddy/users has lines of a name and what `caddy hash-password` prints.
registry.example {
    basic_auth {
        import /etc/caddy/users
    }
    reverse_proxy 127.0.0.1:5000 {
        header_up -Forwarded
        header_up X-Forwarded-User {http.auth.user.id}
        header_up -Authorization
        transport http {
            keepalive 60s
        }
    }
}
