"""The base of all request bodies."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, field_validator, model_validator


class Asked(BaseModel):
    """A request body, in which null means left out."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _without_bools(cls, value: Any) -> Any:
        if _is_bool(value):  # pydantic would take true for 1
            raise ValueError("must not be true or false")
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in values.items() if value is not None or name not in optional}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        plain = handler.resolve_ref_schema(schema)
        for name, field in plain.get("properties", {}).items():
            if name not in plain.get("required", ()) and "null" not in str(field.get("anyOf")):
                labels = ("title", "description", "default", "examples")
                about = {key: field.pop(key) for key in labels if key in field}
                plain["properties"][name] = {"anyOf": [dict(field), {"type": "null"}], **about}
        return schema


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_is_bool, value)))
