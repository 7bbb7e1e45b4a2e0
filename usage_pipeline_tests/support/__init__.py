"""What tests share: worlds, oracles, servers, visitors. Tests themselves lie in the other folders, as the packages do."""
