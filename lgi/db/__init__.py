"""The database of a project: engine and transactions, schema, migrations, one file for each family of tables."""
