"""Lines to Elasticsearch or OpenSearch: documents, bulk requests, outcomes."""
