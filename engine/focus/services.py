"""Service categories of FOCUS, and which of them the services of our sources belong to."""

from __future__ import annotations

from typing import Final

#: Each category's subcategories; every category also has "Other (<category>)".
SUBCATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "AI and Machine Learning": (
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
    ),
    "Analytics": (
        "Analytics Platforms",
        "Business Intelligence",
        "Data Processing",
        "Search",
        "Streaming Analytics",
    ),
    "Business Applications": ("Productivity and Collaboration",),
    "Compute": (
        "Containers",
        "End User Computing",
        "Quantum Compute",
        "Serverless Compute",
        "Virtual Machines",
    ),
    "Databases": (
        "Caching",
        "Data Warehouses",
        "Ledger Databases",
        "NoSQL Databases",
        "Relational Databases",
        "Time Series Databases",
    ),
    "Developer Tools": (
        "Developer Platforms",
        "Continuous Integration and Deployment",
        "Development Environments",
        "Source Code Management",
        "Quality Assurance",
    ),
    "Multicloud": ("Multicloud Integration",),
    "Identity": ("Identity and Access Management",),
    "Integration": ("API Management", "Messaging", "Workflow Orchestration"),
    "Internet of Things": ("IoT Analytics", "IoT Platforms"),
    "Management and Governance": (
        "Architecture",
        "Compliance",
        "Cost Management",
        "Data Governance",
        "Disaster Recovery",
        "Endpoint Management",
        "Observability",
        "Support",
    ),
    "Media": ("Content Creation", "Gaming", "Media Streaming", "Mixed Reality"),
    "Migration": ("Data Migration", "Resource Migration"),
    "Mobile": (),
    "Networking": (
        "Application Networking",
        "Content Delivery",
        "Network Connectivity",
        "Network Infrastructure",
        "Network Routing",
        "Network Security",
    ),
    "Security": ("Secret Management", "Security Posture Management", "Threat Detection and Response"),
    "Storage": ("Backup Storage", "Block Storage", "File Storage", "Object Storage", "Storage Platforms"),
    "Web": ("Application Platforms",),
    "Other": (),
}


def other(category: str) -> str:
    """The subcategory of a category for what fits none of its own."""
    return f"Other ({category})"


#: Every allowed (category, subcategory).
PAIRS: Final = frozenset(
    (category, sub) for category, subs in SUBCATEGORIES.items() for sub in (*subs, other(category))
)
NOTHING_FITS: Final = ("Other", other("Other"))

#: Google Cloud's services by their name in the billing export; what is not here is "Other".
GCP: Final[dict[str, tuple[str, str]]] = {
    "AlloyDB": ("Databases", "Relational Databases"),
    "App Engine": ("Web", "Application Platforms"),
    "Artifact Registry": ("Developer Tools", other("Developer Tools")),
    "BigQuery": ("Databases", "Data Warehouses"),
    "BigQuery BI Engine": ("Analytics", "Business Intelligence"),
    "BigQuery Reservation API": ("Databases", "Data Warehouses"),
    "BigQuery Storage API": ("Databases", "Data Warehouses"),
    "Cloud Bigtable": ("Databases", "NoSQL Databases"),
    "Cloud Build": ("Developer Tools", "Continuous Integration and Deployment"),
    "Cloud Composer": ("Integration", "Workflow Orchestration"),
    "Cloud DNS": ("Networking", "Network Routing"),
    "Cloud Dataflow": ("Analytics", "Data Processing"),
    "Cloud Dataproc": ("Analytics", "Data Processing"),
    "Cloud Filestore": ("Storage", "File Storage"),
    "Cloud Firestore": ("Databases", "NoSQL Databases"),
    "Cloud Functions": ("Compute", "Serverless Compute"),
    "Cloud Key Management Service (KMS)": ("Security", "Secret Management"),
    "Cloud Logging": ("Management and Governance", "Observability"),
    "Cloud Memorystore for Redis": ("Databases", "Caching"),
    "Cloud Monitoring": ("Management and Governance", "Observability"),
    "Cloud Pub/Sub": ("Integration", "Messaging"),
    "Cloud Run": ("Compute", "Serverless Compute"),
    "Cloud SQL": ("Databases", "Relational Databases"),
    "Cloud Scheduler": ("Integration", "Workflow Orchestration"),
    "Cloud Spanner": ("Databases", "Relational Databases"),
    "Cloud Storage": ("Storage", "Object Storage"),
    "Cloud Tasks": ("Integration", "Messaging"),
    "Cloud Vision API": ("AI and Machine Learning", "Machine Learning"),
    "Compute Engine": ("Compute", "Virtual Machines"),
    "Gemini API": ("AI and Machine Learning", "Generative AI"),
    "Kubernetes Engine": ("Compute", "Containers"),
    "Looker": ("Analytics", "Business Intelligence"),
    "Networking": ("Networking", "Network Infrastructure"),
    "Secret Manager": ("Security", "Secret Management"),
    "Security Command Center": ("Security", "Security Posture Management"),
    "Support": ("Management and Governance", "Support"),
    "Vertex AI": ("AI and Machine Learning", "AI Platforms"),
}

#: Categories that people give their SaaS plans, in lower case; what is not here is a business application.
SAAS: Final[dict[str, tuple[str, str]]] = {
    "ai": ("AI and Machine Learning", "Generative AI"),
    "analytics": ("Analytics", "Business Intelligence"),
    "communication": ("Business Applications", "Productivity and Collaboration"),
    "collaboration": ("Business Applications", "Productivity and Collaboration"),
    "productivity": ("Business Applications", "Productivity and Collaboration"),
    "design": ("Media", "Content Creation"),
    "development": ("Developer Tools", "Developer Platforms"),
    "devtools": ("Developer Tools", "Developer Platforms"),
    "identity": ("Identity", "Identity and Access Management"),
    "monitoring": ("Management and Governance", "Observability"),
    "security": ("Security", other("Security")),
    "storage": ("Storage", "Storage Platforms"),
}
BUSINESS: Final = ("Business Applications", other("Business Applications"))
