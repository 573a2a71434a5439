{#- Rows that share their values in the given columns. -#}
{% test unique_combination(model, combination) %}
select
    {{ combination | join(', ') }},
    count(*) as row_count
from {{ model }}
group by {{ combination | join(', ') }}
having count(*) > 1
{% endtest %}
