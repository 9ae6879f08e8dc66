import { lanSuite } from './lan'

lanSuite('macvlan')
