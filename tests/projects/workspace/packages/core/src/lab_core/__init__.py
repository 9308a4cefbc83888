import networkx
